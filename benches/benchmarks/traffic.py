"""Memory traffic and divisions of a step, read from the rules. Knows no optimizer by name."""

import itertools
import operator

from schuss import _schuss

from .floor import Pass


def expressions(stage):
    """Every expression of a stage, nested ones included: tuples like ``("binary", "/", a, b)``."""

    def inner(expression):
        yield expression
        for part in expression[1:]:
            if isinstance(part, tuple):
                yield from inner(part)

    whole = [value for *_, value in stage["statements"] + stage["reductions"]]
    return itertools.chain.from_iterable(map(inner, whole))


def passes_of(rule, program="step"):
    """The passes of a program, as dicts; an empty list if the rule has no such program."""
    stages = _schuss.rule_tree(rule)["programs"].get(program, [])
    return [stage for stage in stages if stage["kind"] == "pass"]


def passes(rule, arrays, program="step"):
    """The memory traffic of a program. ``arrays`` maps ``p``, ``g`` and the names of states to flat arrays.

    Written arrays count as read too, because a cache line is loaded before a part of it is stored. Row and column
    vectors are left out: they are a thousandth of a large matrix. The parameter counts as read if the rule names it; L2
    decay would also read it with every gradient, but no case has that.
    """
    states = {state["name"] for state in _schuss.rule_tree(rule)["states"] if state["scope"] == "element"}
    made = []
    for stage in passes_of(rule, program):
        written = [*["p"] * stage["writes_param"], *stage["writes"]]
        named = {part[1] for part in expressions(stage) if part[0] == "name"}
        read = [name for name in (*sorted(named & {"p", "g"}), *stage["reads"]) if name not in written]
        # Parameters, gradients and copies of parameters have one item size, states another.
        kinds = [
            [name for name in names if (name in states) == own] for own in (False, True) for names in (read, written)
        ]
        made.append(Pass(*(tuple(arrays[name] for name in names) for names in kinds)))
    return made


def backups(rule):
    """The names of a rule's parameter backups."""
    return [state["name"] for state in _schuss.rule_tree(rule)["states"] if state["scope"] == "backup"]


def number(expression, names):
    """The value of a number, of a name, or of arithmetic with them; ``names`` has values, or expressions for them."""
    kind, first, *rest = expression
    if kind == "name":
        return number(names[first], names) if isinstance(names[first], tuple) else names[first]
    if kind == "binary":
        return OPERATORS[first](*(number(part, names) for part in rest))
    return float(first)


OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def divider(rule, hypers):
    """Divisions and square roots per element of each pass of a step; ``hypers`` are the rule's.

    A power whose exponent is 0.5 is a root, and ``atan2`` divides once. Values that a later pass uses again count
    once: they are stored while the array is in cache.
    """
    names = {name: value for name, _, value in _schuss.rule_tree(rule)["each_step"]} | hypers
    seen, found = [], []
    for stage in passes_of(rule):
        statements = [own for own in stage["statements"] if not (stage["recalls"] and own in seen)]
        seen += statements
        counted = list(expressions({**stage, "statements": statements}))
        divisions = sum(part[:2] == ("binary", "/") for part in counted)
        divisions += sum(part[:2] == ("call", "atan2") for part in counted)
        roots = sum(part[:2] == ("call", "sqrt") for part in counted)
        roots += sum(part[:2] == ("call", "pow") and number(part[3], names) == 0.5 for part in counted)
        found.append((divisions, roots))
    return found
