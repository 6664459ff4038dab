r"""Rule texts in LaTeX: letters for the names, fractions, powers, and what is changed in front.

>>> latex(parse("p = fma(-lr, g / (sqrt(v) + eps), p);")[0])
'p \\leftarrow p - \\eta \\frac{g}{\\sqrt{v} + \\epsilon}'
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from rule_text import ONE, Assign, Call, If, Name, Node, Num, Op, children
from rule_text import parse as parse

SYMBOLS = {
    "lr": r"\eta",
    "beta1": r"\beta_1",
    "beta2": r"\beta_2",
    "beta3": r"\beta_3",
    "eps": r"\epsilon",
    "alpha": r"\alpha",
    "mu": r"\mu",
    "momentum": r"\mu",
    "vmax": r"v_{\max}",
    "l2": r"\lambda",
    "weight_decay": r"\lambda",
    "gradient_factor": r"\gamma",
    "decay": r"\delta",
    "ratio": "r",
    "norm_p": r"\lVert p \rVert",
    "norm_g": r"\lVert g \rVert",
    "norm_d": r"\lVert d \rVert",
    "trust_coefficient": r"\tau",
    "initial_lr": r"\eta_0",
    "rho_inf": r"\rho_\infty",
    "rho": r"\rho",
}
_RELATIONS = {"==": "=", "!=": r"\neq", "<": "<", ">": ">", "<=": r"\leq", ">=": r"\geq"}
_FUNCTIONS = {"max": r"\max", "min": r"\min", "exp": r"\exp", "ln": r"\ln", "sign": r"\operatorname{sign}"}


def symbol(name: str) -> str:
    """A name in LaTeX: a letter, or the word upright."""
    if name in SYMBOLS:
        return SYMBOLS[name]
    return name if len(name) == 1 else r"\mathrm{" + name.replace("_", r"\_") + "}"


def latex(statement: Assign | Node) -> str:
    """An assignment, or a value, in LaTeX."""
    if isinstance(statement, Assign):
        sign = "=" if statement.local else r"\leftarrow"
        return f"{symbol(statement.target)} {sign} {_sum(statement.value, statement.target)}"
    return _sum(statement)


def _terms(node: Node, positive: bool = True) -> list[tuple[bool, Node]]:
    """The terms of a sum, each with whether it is added."""
    if isinstance(node, Op) and node.op in "+-":
        *front, last = node.args
        before = _terms(front[0], positive) if front else []
        return before + _terms(last, positive == (node.op == "+"))
    if isinstance(node, Call) and node.name == "fma":
        a, b, c = node.args
        return [*_terms(Op("*", (a, b)), positive), *_terms(c, positive)]
    sign, factors = _factors(node)
    factors = [factor for factor in factors if factor != ONE] or [ONE]
    if len(factors) == 1 and (_is_sum(factors[0])):
        return _terms(factors[0], positive == sign)
    return [(positive == sign, _product_of(factors))]


def _is_sum(node: Node) -> bool:
    return (isinstance(node, Op) and node.op in "+-") or (isinstance(node, Call) and node.name == "fma")


def _product_of(factors: list[Node]) -> Node:
    node = factors[0]
    for factor in factors[1:]:
        node = Op("*", (node, factor))
    return node


def _factors(node: Node) -> tuple[bool, list[Node]]:
    """The factors of a product, with its sign taken out."""
    if isinstance(node, Op) and node.op == "-" and len(node.args) == 1:
        sign, factors = _factors(node.args[0])
        return not sign, factors
    if isinstance(node, Op) and node.op == "*":
        (one, a), (other, b) = map(_factors, node.args)
        return one == other, a + b
    if isinstance(node, Op) and node.op == "/":
        sign, _ = _factors(node.args[0])
        return sign, [node if sign else Op("/", (_product_of(_factors(node.args[0])[1]), node.args[1]))]
    if isinstance(node, Num) and node.value < 0:
        return False, [Num(-node.value)]
    return True, [node]


def _sum(node: Node, target: str | None = None, inner: bool = False) -> str:
    """A sum; `inner` is what stands inside a fraction, where another one is written with a slash."""
    terms = _terms(node)
    # What is changed comes first, and no sum begins with a minus if it can help it.
    front = next((term for term in terms if term == (True, Name(target or ""))), None)
    if front is None and not terms[0][0]:
        front = next((term for term in terms if term[0]), None)
    if front is not None:
        terms.remove(front)
        terms.insert(0, front)
    text = ("" if terms[0][0] else "-") + _product(terms[0][1], target, inner)
    for positive, term in terms[1:]:
        text += (" + " if positive else " - ") + _product(term, target, inner)
    return text


def _is_fraction(node: Node) -> bool:
    return isinstance(node, Op) and node.op == "/"


def _product(node: Node, target: str | None, inner: bool) -> str:
    _, factors = _factors(node)
    if factors[0] == Name(target or "") and len(factors) > 1:  # p * decay: what is changed comes last
        factors = [*factors[1:], factors[0]]
    # 1/d beside other factors, none of them a fraction, is a division of these by d.
    merged = factors
    inverses = [f for f in factors if isinstance(f, Op) and f.op == "/" and f.args[0] == ONE]
    others = [f for f in factors if f not in inverses]
    if len(inverses) == 1 and others and not any(map(_is_fraction, others)):
        merged = [Op("/", (_product_of(others), inverses[0].args[1]))]
    if inner and len(merged) == 1 and isinstance(merged[0], Op) and merged[0].op == "/":
        return _slashed(*merged[0].args)
    parts = []
    for i, factor in enumerate(merged):
        power = merged.count(factor)
        if merged.index(factor) < i:
            continue
        text = _factor(factor, alone=len(merged) == 1)
        parts.append(text if power == 1 else f"{_raised(factor, text)}^{power}")
    text = parts[0]
    for before, part in itertools.pairwise(parts):  # a word needs a space of its own
        text += (r" \, " if "mathrm" in (before[1:7], part[1:7]) else " ") + part
    return text


def _slashed(above: Node, below: Node) -> str:
    upper, lower = _sum(above, inner=True), _sum(below, inner=True)
    upper = rf"\left({upper}\right)" if len(_terms(above)) > 1 else upper
    whole = len(_terms(below)) == 1 and len(_factors(below)[1]) == 1
    return f"{upper} / {lower}" if whole else rf"{upper} / \left({lower}\right)"


def _raised(node: Node, text: str) -> str:
    return text if isinstance(node, (Name, Num)) or text.startswith(r"\left(") else rf"\left({text}\right)"


def _factor(node: Node, alone: bool) -> str:
    if isinstance(node, Name):
        return symbol(node.name)
    if isinstance(node, Num):
        return f"{node.value:g}"
    if isinstance(node, If):
        return _cases(node)
    if isinstance(node, Call):
        return _cases(node) if node.name == "select" else _call(node)
    if node.op == "/":
        return rf"\frac{{{_sum(node.args[0], inner=True)}}}{{{_sum(node.args[1], inner=True)}}}"
    if node.op in _RELATIONS or node.op in ("&&", "||", "!"):
        return _condition(node)
    text = _sum(node)
    return text if alone else rf"\left({text}\right)"


def _call(node: Call) -> str:
    arguments = [_sum(argument) for argument in node.args]
    if node.name == "sqrt":
        return rf"\sqrt{{{arguments[0]}}}"
    if node.name == "abs":
        return rf"\left|{arguments[0]}\right|"
    if node.name == "floor":
        return rf"\lfloor {arguments[0]} \rfloor"
    if node.name == "pow":
        return f"{_raised(node.args[0], arguments[0])}^{{{arguments[1]}}}"
    if node.name == "fma":
        return rf"\left({_sum(node)}\right)"
    name = _FUNCTIONS.get(node.name, rf"\operatorname{{{node.name}}}")
    return rf"{name}\left({', '.join(arguments)}\right)"


def _cases(node: Node) -> str:
    rows = []
    while isinstance(node, If) or (isinstance(node, Call) and node.name == "select"):
        test, yes, node = children(node)
        rows.append(rf"{_sum(yes)} & \text{{if }} {_condition(test)}")
    rows.append(rf"{_sum(node)} & \text{{otherwise}}")
    return r"\begin{cases} " + r" \\ ".join(rows) + r" \end{cases}"


def _condition(node: Node) -> str:
    if isinstance(node, Op) and node.op in _RELATIONS:
        return f"{_sum(node.args[0])} {_RELATIONS[node.op]} {_sum(node.args[1])}"
    if isinstance(node, Op) and node.op in ("&&", "||"):
        word = "and" if node.op == "&&" else "or"
        return rf"{_condition(node.args[0])} \text{{ {word} }} {_condition(node.args[1])}"
    if isinstance(node, Op) and node.op == "!":
        return rf"\text{{not }} {_condition(node.args[0])}"
    return _sum(node)


def display(statements: Iterable[Assign]) -> str:
    """Assignments one below the other, aligned at their arrows."""
    lines = []
    for statement in statements:
        left, _, right = latex(statement).partition(" = " if statement.local else r" \leftarrow ")
        lines.append(rf"{left} &{'=' if statement.local else chr(92) + 'leftarrow'} {right}")
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"
