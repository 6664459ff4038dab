"""The language of rule texts: a parser for the part of Rust that rules are written in, and its evaluation in NumPy.

A rule's text comes from the extension module (``schuss._schuss.rules()``). Its host part is assignments whose values
may be ``if`` expressions and blocks; its element part is ``let``, assignment, arithmetic, comparisons and the named
functions. Both parse into the same few node types. Nothing here knows an optimizer, LaTeX or Sphinx.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Num:
    """A literal number, or a condition that is known: 1 or 0."""

    value: float


@dataclass(frozen=True)
class Name:
    """A parameter, gradient, state, host scalar, hyperparameter or local name."""

    name: str


@dataclass(frozen=True)
class Op:
    """An operator over its operands: one for ``-`` and ``!``, else two."""

    op: str
    args: tuple[Node, ...]


@dataclass(frozen=True)
class Call:
    """A named function of its arguments; a method call has its object as the first."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True)
class If:
    """``if test { yes } else { no }`` as a value."""

    test: Node
    yes: Node
    no: Node


Node = Num | Name | Op | Call | If


@dataclass(frozen=True)
class Assign:
    """``target = value;`` where ``p -= x`` has become ``p = p - x``; ``local`` for a ``let``."""

    target: str
    value: Node
    local: bool = False


ONE, ZERO = Num(1.0), Num(0.0)


class RuleSyntaxError(ValueError):
    """The text is not in the language of rules."""


_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d[\d_]*(?:\.\d[\d_]*|\.(?![\w.]))?(?:[eE][+-]?\d+)?)(?:_?f(?:32|64))?"
    r"|(?P<name>[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*)"
    r"|(?P<op>&&|\|\||=>|[=!<>]=|[-+*/]=|[-+*/<>=!(){};,.:]))"
)
_LEVELS = (("||",), ("&&",), ("==", "!=", "<", ">", "<=", ">="), ("+", "-"), ("*", "/"))
_METHODS = {"powf": "pow", "powi": "pow", "mul_add": "fma"}


def _tokens(text: str) -> list[tuple[str, str]]:
    text = re.sub(r"//[^\n]*", "", text)
    result, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise RuleSyntaxError(f"cannot read {text[at : at + 30]!r}")
        kind = match.lastgroup or ""
        result.append((kind, match[kind]))
        at = match.end()
    return [*result, ("end", "")]


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = 0
        self.depth = 0
        self.inside_if = 0
        self.locals: list[Assign] = []

    def sees(self, *texts: str) -> bool:
        return self.tokens[self.at][1] in texts

    def take(self) -> tuple[str, str]:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, text: str) -> None:
        kind, found = self.take()
        if found != text:
            raise RuleSyntaxError(f"expected {text!r}, found {found or kind!r}")

    def name(self) -> str:
        kind, text = self.take()
        if kind != "name":
            raise RuleSyntaxError(f"expected a name, found {text or kind!r}")
        return text

    def program(self) -> list[Assign]:
        statements = []
        while self.tokens[self.at][0] != "end":
            statements += self.hoisted(self.statement())
        return statements

    def hoisted(self, statement: Assign) -> list[Assign]:
        """A statement behind the local names of the block that is its value."""
        found, self.locals = self.locals, []
        return [*found, statement]

    def statement(self) -> Assign:
        local = self.sees("let")
        if local:
            self.take()
            if self.sees("mut"):
                self.take()
        target = self.name()
        if self.sees(":"):  # a type
            self.take()
            self.name()
        _, op = self.take()
        if op not in ("=", "+=", "-=", "*=", "/=") or (local and op != "="):
            raise RuleSyntaxError(f"expected an assignment to {target}, found {op!r}")
        value = self.expression()
        self.expect(";")
        return Assign(target, value if op == "=" else Op(op[0], (Name(target), value)), local)

    def expression(self, level: int = 0) -> Node:
        if level == len(_LEVELS):
            return self.unary()
        left = self.expression(level + 1)
        while self.sees(*_LEVELS[level]):
            _, op = self.take()
            left = Op(op, (left, self.expression(level + 1)))
        return left

    def unary(self) -> Node:
        if self.sees("-", "!"):
            _, op = self.take()
            return Op(op, (self.unary(),))
        node = self.primary()
        while self.sees("."):
            self.take()
            method = self.name()
            node = Call(_METHODS.get(method, method), (node, *self.arguments()))
        return node

    def arguments(self) -> tuple[Node, ...]:
        self.expect("(")
        arguments: list[Node] = []
        while not self.sees(")"):
            arguments.append(self.expression())
            if not self.sees(")"):
                self.expect(",")
        self.take()
        return tuple(arguments)

    def primary(self) -> Node:
        if self.sees("{"):
            return self.block()
        kind, text = self.take()
        if text == "(":
            node = self.expression()
            self.expect(")")
            return node
        if text == "if":
            return self.conditional()
        if text == "match":
            return self.match()
        if kind == "number":
            return Num(float(text.replace("_", "")))
        if kind == "name":
            return Call(text, self.arguments()) if self.sees("(") else Name(text)
        raise RuleSyntaxError(f"expected a value, found {text or kind!r}")

    def conditional(self) -> Node:
        self.inside_if += 1
        test, yes = self.expression(), self.block()
        self.expect("else")
        if self.sees("if"):
            self.take()
            no = self.conditional()
        else:
            no = self.block()
        self.inside_if -= 1
        return If(test, yes, no)

    def match(self) -> Node:
        """A ``match`` over a condition, as an ``if`` for each arm but the last."""
        self.inside_if += 1
        subject = self.expression()
        self.expect("{")
        arms = []
        while not self.sees("}"):
            pattern = self.name()
            if pattern not in ("true", "false", "_"):
                raise RuleSyntaxError(f"expected true, false or _, found {pattern!r}")
            test: Node = {"true": subject, "false": Op("!", (subject,))}.get(pattern, ONE)
            if self.sees("if"):
                self.take()
                test = Op("&&", (test, self.expression()))
            self.expect("=>")
            arms.append((test, self.expression()))
            if self.sees(","):
                self.take()
        self.take()
        self.inside_if -= 1
        node = arms.pop()[1]
        for test, value in reversed(arms):
            node = If(test, value, node)
        return node

    def block(self) -> Node:
        """A block's value; local names of the outermost block are kept, those further inside are replaced."""
        self.expect("{")
        self.depth += 1
        known: dict[str, Node] = {}
        while self.sees("let"):
            local = self.statement()
            value = substitute(local.value, known)
            if self.depth == 1 and not self.inside_if:
                self.locals.append(Assign(local.target, value, local=True))
            else:
                known[local.target] = value
        node = substitute(self.expression(), known)
        self.depth -= 1
        self.expect("}")
        return node


def parse(text: str) -> list[Assign]:
    """The assignments of a host part or of an element part.

    Raises
    ------
    RuleSyntaxError
        The text leaves the language of rules.

    Examples
    --------
    >>> parse("p -= lr * g;")[0].value == parse("p = p - lr * g;")[0].value
    True
    """
    return _Parser(text).program()


def parse_value(text: str) -> Node:
    """A single value; local names of a block are replaced by what they stand for."""
    *before, last = parse(f"x = ({text});")
    known: dict[str, Node] = {}
    for local in before:
        known[local.target] = substitute(local.value, known)
    return substitute(last.value, known)


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below this one."""
    if isinstance(node, If):
        return node.test, node.yes, node.no
    return node.args if isinstance(node, (Op, Call)) else ()


def rebuilt(node: Node, below: tuple[Node, ...]) -> Node:
    """The same node over other nodes."""
    if isinstance(node, If):
        return If(*below)
    if isinstance(node, Op):
        return Op(node.op, below)
    return Call(node.name, below) if isinstance(node, Call) else node


def substitute(node: Node, known: Mapping[str, Node]) -> Node:
    """The node with names replaced by what they stand for."""
    if isinstance(node, Name):
        return known.get(node.name, node)
    return rebuilt(node, tuple(substitute(child, known) for child in children(node)))


def names(node: Node) -> set[str]:
    """Every name in it."""
    found = {node.name} if isinstance(node, Name) else set()
    return found.union(*(names(child) for child in children(node)))


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
    "&&": np.logical_and,
    "||": np.logical_or,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "fma": lambda a, b, c: a * b + c,
    "select": np.where,
    "sqrt": np.sqrt,
    "max": np.maximum,
    "min": np.minimum,
    "abs": np.abs,
    "sign": np.sign,
    "pow": np.power,
    "exp": np.exp,
    "ln": np.log,
    "floor": np.floor,
}


def evaluate(node: Node, values: Mapping[str, Any]) -> Any:
    """The value of a node in float64, over arrays or numbers.

    ``fma`` rounds twice here and once in a kernel: compare with a tolerance.
    """
    if isinstance(node, Num):
        return np.float64(node.value)
    if isinstance(node, Name):
        return values[node.name]
    if isinstance(node, If):
        return evaluate(node.yes if evaluate(node.test, values) else node.no, values)
    arguments = [evaluate(argument, values) for argument in node.args]
    if isinstance(node, Call):
        if node.name not in FUNCTIONS:
            raise RuleSyntaxError(f"{node.name} is not a function of rules")
        return FUNCTIONS[node.name](*arguments)
    if len(arguments) == 1:
        return -arguments[0] if node.op == "-" else np.logical_not(arguments[0])
    return OPERATORS[node.op](*arguments)


def run(statements: list[Assign], values: Mapping[str, Any]) -> dict[str, Any]:
    """All values after the statements have been carried out in order."""
    result = dict(values)
    with np.errstate(all="ignore"):
        for statement in statements:
            result[statement.target] = evaluate(statement.value, result)
    return result
