"""A rule's tree as equations for one setting of its options.

The extension module provides the syntax tree of each rule. `equations` inserts the values of options, resolves the
branches that depend on them, and inlines short scalars. This module knows neither LaTeX nor pages.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import sympy as sp

#: Sizes up to which a scalar is inlined: if it is used at most twice, and always.
ONCE, OFTEN = 16, 5
#: Prefixes of the names of scalars that are never negative.
NORMS = ("norm_", "rms_")
#: Maximum and minimum. NumPy cannot evaluate SymPy's own with scalars and arrays together.
Max, Min = type("Max", (sp.Function,), {}), type("Min", (sp.Function,), {})


class Select(sp.Function):  # type: ignore[misc]
    """The first value if the condition holds, else the second."""

    @classmethod
    def eval(cls, test: Any, yes: Any, no: Any) -> Any:
        """Simplifies it if the condition is known, or if it equals another function."""
        if test in (sp.true, sp.false) or yes == no:
            return no if test == sp.false else yes
        if isinstance(test, sp.Ne):
            return Select(sp.Eq(*test.args), no, yes)
        if isinstance(test, (sp.Lt, sp.Le, sp.Gt, sp.Ge)) and {yes, no} == set(test.args):
            return (Min if isinstance(test, (sp.Lt, sp.Le)) == (yes == test.lhs) else Max)(yes, no)
        return None


FUNCTIONS = {"select": Select, "sqrt": sp.sqrt, "abs": sp.Abs, "sign": sp.sign, "max": Max, "min": Min}
FUNCTIONS |= {"cbrt": sp.cbrt, "atan2": sp.atan2, "log": sp.log}
# A base such as 0.96 stays one: SymPy makes a fraction of two powers of a rational number.
FUNCTIONS["pow"] = lambda a, b: sp.Pow(sp.Float(a) if a.is_Rational and not a.is_Integer else a, b)
FUNCTIONS["fma"] = lambda a, b, c: a * b + c
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "&&": sp.And, "||": sp.Or}
OPERATORS |= {"==": sp.Eq, "!=": sp.Ne, "<": sp.Lt, "<=": sp.Le, ">": sp.Gt, ">=": sp.Ge}


class Line(NamedTuple):
    """One equation."""

    name: str
    value: Any
    assigns: bool = False  # whether the line assigns a new value, as to a state, or defines the name
    reduction: tuple[str, str] | None = None  # operation and scope


class Stage(NamedTuple):
    """The equations of a pass or text."""

    kind: str  # "each_step", "pass", "row", "col", "array" or "all"
    lines: tuple[Line, ...]
    access: tuple[bool, ...]  # whether a pass reads the gradient, reads the parameter, and writes it


def symbol(name: str) -> sp.Symbol:
    """The symbol of a name."""
    return sp.Symbol(name, real=True, nonnegative=name.startswith(NORMS) or None)


def names(value: Any) -> set[str]:
    """The names in an expression."""
    return {found.name for found in value.free_symbols}


class _Reader:
    """Converts trees, with fixed values for some names; knows which scalars are not zero."""

    def __init__(self, fixed: Mapping[str, Any], nonzero: Iterable[str]) -> None:
        self.fixed = fixed
        self.nonzero: dict[str, Any] = dict.fromkeys(["lr", "t", *nonzero], sp.true)

    def expression(self, node: tuple[Any, ...]) -> Any:
        """A node of the tree as a SymPy expression."""
        kind, head, *below = node
        if kind == "number":
            return sp.Rational(head)
        if kind == "name":
            return self.fixed.get(head, symbol(head))
        arguments = [self.expression(argument) for argument in below]
        if kind == "unary":
            return -arguments[0] if head == "-" else sp.Not(arguments[0])
        return self.settled((FUNCTIONS if kind == "call" else OPERATORS)[head](*arguments))

    def is_nonzero(self, value: Any) -> Any:
        """The condition under which a value is not zero."""
        if isinstance(value, Select):
            test, yes, no = value.args
            return sp.Or(sp.And(test, self.is_nonzero(yes)), sp.And(sp.Not(test), self.is_nonzero(no)))
        if isinstance(value, (sp.Mul, sp.Pow)):
            return sp.And(*map(self.is_nonzero, value.args if isinstance(value, sp.Mul) else value.args[:1]))
        if value.is_Symbol:
            return self.nonzero.get(value.name, sp.Ne(value, 0))
        # A sum of scalars, such as 1 - beta^t, is assumed to be nonzero.
        return sp.Ne(value, 0) if names(value) - set(self.nonzero) or value.is_zero else sp.true

    def settled(self, value: Any) -> Any:
        """The expression with comparisons to zero replaced by their known results."""
        return value.replace(
            lambda e: isinstance(e, (sp.Ne, sp.Eq)) and e.rhs == 0,
            lambda e: self.is_nonzero(e.lhs) if isinstance(e, sp.Ne) else sp.Not(self.is_nonzero(e.lhs)),
        )

    def split(self, value: Any) -> Any:
        """The expression with conditions moved outward."""
        test = next((part.args[0] for part in sp.preorder_traversal(value) if isinstance(part, Select)), None)
        if test is None:
            return value
        yes, no = ({test: sp.S(holds), sp.Not(test): sp.S(not holds)} for holds in (True, False))
        return Select(test, *(self.split(self.settled(value.xreplace(facts))) for facts in (yes, no)))


def equations(
    tree: Mapping[str, Any], program: str, fixed: Mapping[str, Any], nonzero: Iterable[str], outputs: Iterable[str] = ()
) -> tuple[Stage, ...]:
    """The equations of a program of a rule, by `schuss._schuss.rule_tree`.

    `fixed` has values of hyperparameters, such as flags; `nonzero` has names that are assumed not to be zero; `outputs`
    are scalars to keep although nothing reads them.
    """
    reader = _Reader(fixed, nonzero)
    stages = [{"kind": "each_step", "statements": tree["each_step"], "reductions": []}, *tree["programs"][program]]
    kept = {"p", "g", *outputs, *(state["name"] for state in tree["states"])}
    lines: list[tuple[int, Line]] = []
    for number, stage in enumerate(stages):
        for name, _, value in stage["statements"]:
            lines.append((number, Line(name, reader.expression(value), name in kept)))
        for operation, scope, name, value in stage["reductions"]:
            lines += [(number, line) for line in _reduced(operation, scope, name, reader.expression(value))]
    # If the prologue applies weight decay, the parameter changes from one pass to the next.
    _write_out(lines, kept, set() if "weight_decay" in tree["hypers"] else {"p"}, reader)
    needed = set(kept)
    for at in reversed(range(len(lines))):
        number, line = lines[at]
        lines[at] = number, line._replace(value=reader.split(line.value))
        if line.name in needed and line.value != symbol(line.name):
            needed |= names(lines[at][1].value)
        else:
            del lines[at]
    own = [tuple(line for n, line in lines if n == number) for number in range(len(stages))]
    access = [tuple(stage.get(key, False) for key in ("reads_grad", "reads_param", "writes_param")) for stage in stages]
    return tuple(Stage(stage["kind"], *rest) for stage, *rest in zip(stages, own, access, strict=True) if rest[0])


def _reduced(operation: str, scope: str, name: str, value: Any) -> list[Line]:
    """A reduction; a sum of squares becomes the square of a norm."""
    squares = isinstance(value, sp.Pow) and value.exp == 2 and value.base.is_Symbol
    if not squares or scope not in ("array", "all") or operation == "max":
        return [Line(name, value, reduction=(operation, scope))]
    norm = f"{'norm' if operation == 'sum' else 'rms'}_{value.base.name}"
    return [Line(norm, value, reduction=(norm.partition("_")[0], scope)), Line(name, symbol(norm) ** 2)]


def _write_out(lines: list[tuple[int, Line]], kept: set[str], unstable: set[str], reader: _Reader) -> None:
    """Inlines values that are short and do not change before they are used.

    Locals that an earlier pass has computed are dropped.
    """
    at = 0
    while at < len(lines):
        number, line = lines[at]
        used, later = names(line.value), [other.name for _, other in lines[at + 1 :]]
        before = next((i for i in reversed(range(at)) if lines[i][1].name == line.name), at)
        changed = unstable.union(other.name for _, other in lines[before + 1 : at])
        if before < at and line.name not in kept and lines[before][1] == line and not changed & used:
            del lines[at]
            continue
        end = at + later.index(line.name) + 2 if line.name in later else len(lines)
        uses = [i for i in range(at + 1, end) if line.name in names(lines[i][1].value)]
        count = sum(lines[i][1].value.count(symbol(line.name)) for i in uses)
        scope = "each_step" if number == 0 else "far" if any(lines[i][0] != number for i in uses) else "near"
        changed = {other.name for _, other in lines[at + 1 : max(uses, default=at)]}
        if line.name not in kept and not changed & used and _is_short(scope, line, count):
            del lines[at]
            for i in (use - 1 for use in uses):
                value = lines[i][1].value.xreplace({symbol(line.name): line.value})
                lines[i] = lines[i][0], lines[i][1]._replace(value=value)
        else:
            at += 1
            if number == 0:
                reader.nonzero[line.name] = reader.is_nonzero(line.value)
        lines[at:] = [(n, other._replace(value=reader.settled(other.value))) for n, other in lines[at:]]


def _is_short(scope: str, line: Line, count: int) -> bool:
    """Whether to inline a value that is used `count` times."""
    if line.reduction:
        return False
    size = sum(1 for _ in sp.preorder_traversal(line.value))
    if isinstance(line.value, Select) and all(value.is_Atom for value in line.value.args[1:]):
        return True
    if scope != "each_step" and len(line.name) == 1 and size > 3:
        return False
    once = count <= {"near": 2, "each_step": 2, "far": 0 if line.value.has(Select) else 1}[scope]
    return size <= (ONCE if once else OFTEN) or (scope == "near" and count == 1)
