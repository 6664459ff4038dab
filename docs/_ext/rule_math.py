"""From a rule's text to the equations of one setting.

A rule serves many settings: its host scalars hold the ``if`` of every option. :func:`cases` fixes the options, folds
what has become constant, and writes host scalars out in the update where that keeps it readable. :mod:`rule_latex`
prints what is left. ``tests/system/test_docs.py`` evaluates the result beside the kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rule_source import expanded, layer_of, renamed
from rule_text import (
    ONE,
    ZERO,
    Assign,
    Call,
    If,
    Name,
    Node,
    Num,
    Op,
    children,
    evaluate,
    names,
    parse,
    rebuilt,
    run,
    substitute,
)

#: What every kernel does to gradient and parameter before the rule's own update, as in ``rust/kernels/src/rule.rs``.
PROLOGUE = "g *= gradient_factor; g = select(l2 != 0.0, fma(l2, p, g), g); p *= decay;"

FIRST_STEP = Op("==", (Name("t"), ONE))
LATER_STEP = Op(">", (Name("t"), ONE))
_NEGATED = {"==": "!=", "!=": "==", "<": ">=", ">": "<=", "<=": ">", ">=": "<"}
_SHORT = 5  # nodes up to which a host scalar is written out wherever it is used
_INLINE = 16  # the same for one that is used once or twice


def simplify(node: Node, facts: Mapping[Node, bool], nonzero: Collection[str] = ()) -> Node:
    """The node with everything folded that the facts decide.

    Parameters
    ----------
    node : Node
        What to simplify.
    facts : mapping of Node to bool
        Conditions that are known to hold or not to hold.
    nonzero : collection of str
        Names that stand for something else than zero.
    """
    node = rebuilt(node, tuple(simplify(child, facts, nonzero) for child in children(node)))
    if node in facts:
        return Num(float(facts[node]))
    if isinstance(node, If) or (isinstance(node, Call) and node.name == "select"):
        test, yes, no = children(node)
        if isinstance(test, Num):
            return yes if test.value else no
        return yes if yes == no else node
    if isinstance(node, Call) and node.name == "fma":
        a, b, c = node.args
        if ONE in (a, b):
            return simplify(Op("+", (b if a == ONE else a, c)), facts, nonzero)
        return node if c != ZERO else simplify(Op("*", (a, b)), facts, nonzero)
    return _fold(node, nonzero) if isinstance(node, Op) else node


def _fold(node: Op, nonzero: Collection[str]) -> Node:
    if all(isinstance(argument, Num) for argument in node.args):
        return Num(float(evaluate(node, {})))
    if len(node.args) == 1:
        return node
    op, (a, b) = node.op, node.args
    if op in ("==", "!=") and ZERO in (a, b) and _is_nonzero(b if a == ZERO else a, nonzero):
        return Num(float(op == "!="))
    if op in ("&&", "||"):
        decisive = Num(float(op == "||"))
        if decisive in (a, b):
            return decisive
        return b if isinstance(a, Num) else a if isinstance(b, Num) else node
    neutral = {"+": ZERO, "-": ZERO, "*": ONE, "/": ONE}.get(op)
    if b == neutral:
        return a
    return b if op in "+*" and a == neutral else node


def _is_nonzero(node: Node, nonzero: Collection[str]) -> bool:
    if isinstance(node, Op) and node.op in ("*", "/"):
        return all(_is_nonzero(argument, nonzero) for argument in node.args)
    if isinstance(node, Op) and node.op == "-" and node.args[0] == ONE:  # 1 - beta^t
        return isinstance(node.args[-1], Call) and node.args[-1].name == "pow"
    return (isinstance(node, Name) and node.name in nonzero) or (isinstance(node, Num) and node != ZERO)


@dataclass(frozen=True)
class Case:
    """What a kernel computes under some setting, on the steps where some conditions hold."""

    #: When; all of them must hold.
    when: tuple[Node, ...]
    #: Host scalars that were not written out in the update.
    scalars: tuple[Assign, ...]
    #: The update of an element.
    update: tuple[Assign, ...]
    #: For a layerwise rule what comes before its scalars, over the whole array; it ends with the direction in `d`.
    direction: tuple[Assign, ...] = ()

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether this is the case that applies."""
        known = run([s for s in self.scalars if s.target != "ratio"], values)
        return all(bool(evaluate(test, known)) for test in self.when)

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All names after a step, from parameter, states, ``g``, ``t`` and hyperparameters before it."""
        known = run([*(s for s in self.scalars if s.target != "ratio"), *self.direction], values)
        known |= {f"norm_{name}": np.linalg.norm(known[name]) for name in "pgd" if name in known}
        return run([*(s for s in self.scalars if s.target == "ratio"), *self.update], known)


def texts(rule: Mapping[str, Any], name: str) -> tuple[list[Assign], list[Assign], list[Assign]]:
    """Host scalars, direction and update of a rule, as its source says; only a layerwise rule has a direction.

    The ratio of a layerwise rule stands last among its host scalars, and the direction in ``d``; a direction that is
    the gradient is left out.
    """
    host = [Assign(s.target, expanded(s.value)) for s in parse(rule["each_step"])]
    update = parse(rule["update"])
    layer = layer_of(name)
    if layer is None:
        return host, [], update
    direction = [Assign("d", s.value) if s.target == "p" else s for s in layer.direction]
    norm = "norm_d"
    if direction == [Assign("d", Name("g"))]:
        direction, norm = [], "norm_g"
    ratio = renamed(Assign("ratio", expanded(layer.ratio)), dict(zip(layer.norms, ("norm_p", norm), strict=True)))
    return [s for s in host if s.target != "ratio"] + [ratio], direction, update


def cases(
    rule: Mapping[str, Any], name: str, constants: Mapping[str, float], nonzero: Collection[str] = ()
) -> tuple[Case, ...]:
    """The equations of a rule when some of its hyperparameters are fixed.

    Step 1 gets a case of its own where it differs, and so do the two values of a host scalar that is 1 or 0 by a
    condition.

    Parameters
    ----------
    rule : dict
        One entry of ``schuss._schuss.rules()``.
    name : str
        Its name there.
    constants : mapping of str to float
        The hyperparameters of the rule that are fixed, such as flags.
    nonzero : collection of str
        Hyperparameters and host scalars that are known not to be zero.
    """
    given = texts(rule, name), constants, frozenset(nonzero)
    whole = _case(*given)
    choices: list[tuple[tuple[str, Node, bool], ...]] = []
    for scalar in whole.scalars:
        value = scalar.value
        if isinstance(value, If) and {value.yes, value.no} == {ONE, ZERO} and value.test != FIRST_STEP:
            choices.append(((scalar.target, value.test, True), (scalar.target, value.test, False)))
    first, later = (_case(*given, ((("", FIRST_STEP, is_first)),)) for is_first in (True, False))
    if (first.scalars, first.direction, first.update) != (later.scalars, later.direction, later.update):
        choices.append((("", FIRST_STEP, True), ("", FIRST_STEP, False)))
    return tuple(_case(*given, chosen) for chosen in itertools.product(*choices))


def _case(
    text: tuple[list[Assign], list[Assign], list[Assign]],
    constants: Mapping[str, float],
    nonzero: frozenset[str],
    chosen: tuple[tuple[str, Node, bool], ...] = (),
) -> Case:
    facts = {test: holds for _, test, holds in chosen}
    switched = {name: holds for name, _, holds in chosen if name}
    known: dict[str, Node] = {name: Num(float(value)) for name, value in constants.items()}
    host: list[Assign] = []
    for scalar in text[0]:
        value = _without_zeros(simplify(substitute(scalar.value, known), facts, nonzero))
        if scalar.target in switched and isinstance(value, If):
            value = value.yes if switched[scalar.target] else value.no
        known.pop(scalar.target, None)
        if isinstance(value, (Num, Name)):
            known[scalar.target] = value
        else:
            host.append(Assign(scalar.target, value))
            nonzero |= {scalar.target} if _is_nonzero(value, nonzero) else set()
    direction, update = (
        [Assign(s.target, simplify(substitute(s.value, known), facts, nonzero), s.local) for s in part]
        for part in text[1:]
    )
    when = tuple(_in_names(_negated(test, holds), host) for _, test, holds in chosen)
    in_tests = set().union(*(names(test) for test in when))
    host, body = _written_out(host, direction + update, in_tests, facts, nonzero)
    count = next((i + 1 for i, s in enumerate(body) if s.target == "d" and direction), 0)
    return Case(when, tuple(host), tuple(_not_again(body[:count], body[count:])), tuple(body[:count]))


def _not_again(done: list[Assign], statements: list[Assign]) -> list[Assign]:
    """The statements without those that only compute again what is known already."""
    result = []
    for statement in statements:
        again = Assign(statement.target, statement.value)
        at = next((i for i, s in enumerate(done) if Assign(s.target, s.value) == again), None)
        changed = {s.target for s in done[(at or 0) + 1 :] + result}
        if not statement.local or at is None or changed & (names(statement.value) | {statement.target}):
            result.append(statement)
    return result


def _without_zeros(node: Node) -> Node:
    """Products with 0 folded, which is right for the finite numbers of the host."""
    node = rebuilt(node, tuple(_without_zeros(child) for child in children(node)))
    return ZERO if isinstance(node, Op) and node.op == "*" and ZERO in node.args else node


def _in_names(node: Node, host: list[Assign]) -> Node:
    """The node with what some host scalar stands for replaced by that scalar's name."""
    for scalar in host:
        if scalar.value == node:
            return Name(scalar.target)
    return rebuilt(node, tuple(_in_names(child, host) for child in children(node)))


def _negated(test: Node, holds: bool) -> Node:
    if holds:
        return test
    if test == FIRST_STEP:
        return LATER_STEP
    if isinstance(test, Op) and test.op in _NEGATED:
        return Op(_NEGATED[test.op], test.args)
    return Op("!", (test,))


def _written_out(
    host: list[Assign], update: list[Assign], in_tests: set[str], facts: Mapping[Node, bool], nonzero: Collection[str]
) -> tuple[list[Assign], list[Assign]]:
    """Host scalars and update after short scalars have been put where they are used, and unused ones dropped."""
    needed = set(in_tests).union(*(names(statement.value) for statement in update))
    for scalar in reversed(host):
        if scalar.target in needed:
            needed |= names(scalar.value)
    statements = [s for s in host if s.target in needed] + update
    count = len(statements) - len(update)
    kept: list[Assign] = []
    while count:
        scalar, statements, count = statements[0], statements[1:], count - 1
        uses = sum(_count(statement.value, scalar.target) for statement in statements)
        fits = _size(scalar.value) <= (_INLINE if uses <= 2 else _SHORT) and not _is_special(scalar.value)
        if scalar.target in in_tests or not fits:
            kept.append(scalar)
        else:
            statements = [_replaced(s, scalar, facts, nonzero) for s in statements]
    result: list[Assign] = []
    while statements:
        statement, statements = statements[0], statements[1:]
        if statement.local and _may_move(statement, statements):
            statements = [_replaced(s, statement, facts, nonzero) for s in statements]
        elif statement.value != Name(statement.target):
            result.append(statement)
    return kept, result


def _replaced(statement: Assign, known: Assign, facts: Mapping[Node, bool], nonzero: Collection[str]) -> Assign:
    value = simplify(substitute(statement.value, {known.target: known.value}), facts, nonzero)
    return Assign(statement.target, value, statement.local)


def _may_move(local: Assign, rest: list[Assign]) -> bool:
    """Whether a local name can be replaced by its value: another name, or a word that is used once.

    Nothing in its value may change before the last use.
    """
    alias = isinstance(local.value, Name)
    if not alias and (len(local.target) == 1 or _is_special(local.value)):
        return False
    used = [i for i, statement in enumerate(rest) if local.target in names(statement.value)]
    before = rest[: used[-1]] if used else []
    if any(statement.target in names(local.value) for statement in before):
        return False
    return alias or sum(_count(statement.value, local.target) for statement in rest) <= 1


def _count(node: Node, name: str) -> int:
    return int(node == Name(name)) + sum(_count(child, name) for child in children(node))


def _size(node: Node) -> int:
    return 1 + sum(_size(child) for child in children(node))


def _is_special(node: Node) -> bool:
    """Whether it has cases in it: what is better read under a name of its own."""
    special = isinstance(node, If) or (isinstance(node, Call) and node.name == "select")
    return special or any(_is_special(child) for child in children(node))
