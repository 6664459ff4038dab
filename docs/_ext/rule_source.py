"""What a rule's source says beside the text that the extension module keeps.

Helper functions that several host scalars call, the two phases of layerwise rules, and the tools that are rules too but
belong to no optimizer. Read from ``rust/kernels/src/rules/*.rs``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rule_text import Assign, Call, Name, Node, children, parse, parse_value, rebuilt, substitute

RULES = Path(__file__).parents[2] / "rust" / "kernels" / "src" / "rules"


@dataclass(frozen=True)
class Layer:
    """The first phase of a layerwise rule, and the ratio that follows from it."""

    #: The update that leaves the direction in ``p``, on a copy of the parameter.
    direction: tuple[Assign, ...]
    #: What the norms of the parameter and of the direction are called in the ratio.
    norms: tuple[str, str]
    #: The ratio.
    ratio: Node


@cache
def _source() -> str:
    texts = [path.read_text(encoding="utf-8") for path in sorted(RULES.glob("*.rs"))]
    return re.sub(r"//[^\n]*", "", "\n".join(texts))


def file_of(name: str) -> Path:
    """The file that a rule stands in."""
    return next(path for path in sorted(RULES.glob("*.rs")) if re.search(rf"^    {name} \{{", path.read_text(), re.M))


def _block(text: str, start: int) -> str:
    """What is between the brace at `start` and the one that closes it."""
    depth = 0
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start + 1 : at]
    raise ValueError("a brace is not closed")


@cache
def helpers() -> dict[str, tuple[tuple[str, ...], Node]]:
    """Functions of host scalars: their parameters and their value."""
    found = {}
    for match in re.finditer(r"fn (\w+)\(((?:\w+: f64(?:, )?)+)\) -> f64 \{", _source()):
        parameters = tuple(re.findall(r"(\w+): f64", match[2]))
        found[match[1]] = (parameters, parse_value("{" + _block(_source(), match.end() - 1) + "}"))
    return found


def expanded(node: Node) -> Node:
    """The node with calls of helpers replaced by what they compute."""
    node = rebuilt(node, tuple(expanded(child) for child in children(node)))
    if isinstance(node, Call) and node.name in helpers():
        parameters, value = helpers()[node.name]
        return substitute(value, dict(zip(parameters, node.args, strict=True)))
    return node


def update_of(name: str) -> tuple[Assign, ...]:
    """The update of a rule, by the source."""
    match = re.search(rf"\b{name} \{{", _source())
    if match is None:
        raise ValueError(f"there is no rule {name}")
    body = _block(_source(), match.end() - 1)
    start = re.search(r"update\([^)]*\) \{", body)
    if start is None:
        raise ValueError(f"{name} has no update")
    return tuple(parse(_block(body, start.end() - 1)))


def layer_of(name: str) -> Layer | None:
    """The first phase of a layerwise rule; None for an elementwise one."""
    match = re.search(rf"\b{name} \{{\s*layerwise \((\w+)\) \((\w+), (\w+)\) \{{", _source())
    if match is None:
        return None
    *local, last = parse(_block(_source(), match.end() - 1))
    known: dict[str, Node] = {}
    for statement in local:
        known[statement.target] = substitute(statement.value, known)
    ratio = substitute(last.value, known)
    return Layer(update_of(match[1]), (match[2], match[3]), ratio)


def renamed(statement: Assign, new: dict[str, str]) -> Assign:
    """The statement with other names."""
    value = substitute(statement.value, {old: Name(name) for old, name in new.items()})
    return Assign(new.get(statement.target, statement.target), value, statement.local)


def synchronization() -> tuple[Assign, ...]:
    """What Lookahead does to slow and fast weights, by the rule that it uses."""
    names = {"p": "slow", "g": "p", "factor": "alpha"}
    return (*(renamed(statement, names) for statement in update_of("interpolate")), Assign("p", Name("slow")))
