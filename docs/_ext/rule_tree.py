"""A rule's tree as equations for one setting of its options.

The extension module provides the syntax tree of each rule. `equations` inserts the values of options, resolves the
branches that depend on them, and inlines short scalars. This module knows neither LaTeX nor pages.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import sympy as sp

#: Sizes up to which a value is inlined: if it is used at most twice, and always.
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
        if isinstance(test, (sp.Ne, sp.Not)):
            return Select(sp.Not(test), no, yes)
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
    stage: int = 0  # the position of its stage in the program


class Stage(NamedTuple):
    """The equations of a pass or text."""

    kind: str  # "each_step", "pass", "row", "col", "array" or "all"
    lines: tuple[Line, ...]


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
            yes, no = sp.And(test, self.is_nonzero(yes)), sp.And(sp.Not(test), self.is_nonzero(no))
            return sp.simplify_logic(sp.Or(yes, no))
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
        yes = {sp.Not(test): sp.false, **dict.fromkeys([test, *sp.And.make_args(test)], sp.true)}
        no = {sp.Not(test): sp.true, test: sp.false}
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
    lines: list[Line] = []
    for number, stage in enumerate(stages):
        for name, _, node in stage["statements"]:
            value = reader.expression(node)
            lines.append(Line(name, value, name in kept, stage=number))
            if number == 0:
                reader.nonzero[name] = reader.is_nonzero(value)
        for operation, scope, name, node in stage["reductions"]:
            reduced = _reduced(operation, scope, name, reader.expression(node))
            lines += [line._replace(stage=number) for line in reduced]
    _write_out(lines, kept, reader)
    needed, found = set(kept), list[Line]()
    for line in reversed(lines):
        value = reader.split(line.value)
        if line.name in needed and value != symbol(line.name):
            needed |= names(value)
            found.insert(0, line._replace(value=value))
    numbers = sorted({line.stage for line in found})
    return tuple(Stage(stages[i]["kind"], tuple(line for line in found if line.stage == i)) for i in numbers)


def _reduced(operation: str, scope: str, name: str, value: Any) -> list[Line]:
    """A reduction; a sum of squares becomes the square of a norm."""
    squares = isinstance(value, sp.Pow) and value.exp == 2 and value.base.is_Symbol
    if not squares or scope not in ("array", "all") or operation == "max":
        return [Line(name, value, reduction=(operation, scope))]
    norm = f"{'norm' if operation == 'sum' else 'rms'}_{value.base.name}"
    return [Line(norm, value, reduction=(norm.partition("_")[0], scope)), Line(name, symbol(norm) ** 2)]


def _write_out(lines: list[Line], kept: set[str], reader: _Reader) -> None:
    """Inlines values that are short and do not change before they are used."""
    at = 0
    while at < len(lines):
        line, later = lines[at], range(at + 1, len(lines))
        # The last line that may read the value is the next one that assigns the name.
        end = next((i for i in later if lines[i].name == line.name), len(lines) - 1)
        uses = [i for i in later if i <= end and line.name in names(lines[i].value)]
        changed = {other.name for other in lines[at + 1 : max(uses, default=at)]}
        if line.name in kept or changed & names(line.value) or not _is_short(line, [lines[i] for i in uses]):
            at += 1
            continue
        for i in uses:
            value = lines[i].value.xreplace({symbol(line.name): line.value})
            lines[i] = lines[i]._replace(value=reader.settled(value))
        del lines[at]


def _is_short(line: Line, uses: list[Line]) -> bool:
    """Whether to inline a value where it is used."""
    size = sum(1 for _ in sp.preorder_traversal(line.value))
    letter = len(line.name) == 1 and size > 3
    condition = line.value.has(Select) and any(use.stage != line.stage for use in uses)
    if line.reduction or (line.stage > 0 and (letter or condition)):
        return False
    count = sum(use.value.count(symbol(line.name)) for use in uses)
    return size <= (ONCE if count <= 2 else OFTEN)
