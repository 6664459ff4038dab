"""Which rules a class uses under which settings, found by trying its options.

Everything is read from the class and from what the extension module says of rules: a class that joins the registry
needs nothing here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import sympy as sp
from rule_tree import Stage, equations

import schuss
from schuss import _schuss
from schuss._core.hyperparameters import choices_of
from schuss._core.optimizer import Optimizer

NUDGE = 0.0123  # added to a number to find out which of the rule's hyperparameters follow it
ARRAYS = [np.zeros((2, 2)), np.zeros(2)]


class Variant(NamedTuple):
    """One setting of a class that has equations of its own."""

    #: What to pass to the constructor.
    options: Mapping[str, Any]
    rule: str
    #: The dimensions of the arrays that have the rule.
    ndims: tuple[int, ...]
    #: The equations of each program.
    programs: Mapping[str, tuple[Stage, ...]]


def optimizers() -> dict[str, type[Optimizer]]:
    """The classes that have a page: those of the registry, and those that wrap one."""
    things = {name: thing for name, thing in vars(schuss).items() if isinstance(thing, type) and thing is not Optimizer}
    return schuss.OPTIMIZERS | {name: thing for name, thing in things.items() if issubclass(thing, Optimizer)}


class Kernels:
    """The class that does a class's work on elements, itself or the one that it wraps, and its hyperparameters."""

    def __init__(self, kind: type[Optimizer]) -> None:
        made = kind(ARRAYS[0].copy(), lr=1e-3)  # type: ignore[call-arg]
        inner = getattr(made, "optimizer", made)
        self.kind: type[Optimizer] = type(inner)
        self.defaults: dict[str, Any] = inner.param_groups[0].hypers

    def allows(self, options: Mapping[str, Any]) -> bool:
        """Whether these options go together."""
        try:
            for name, value in options.items():
                self.kind._fields[name].check(name, value)
            self.kind._check({**self.defaults, **options})
        except (TypeError, ValueError):
            return False
        return True

    def rules(self, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """The names of the rules that some options stand for, with the dimensions of arrays that have them."""
        found: dict[str, tuple[int, ...]] = {}
        for array in ARRAYS:
            rule = self.kind._array_rule({**self.defaults, **options}, array)
            found[rule] = (*found.get(rule, ()), array.ndim)
        return found

    def values(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values of the rule's hyperparameters, of a float64 array."""
        return self.kind._typed_rule_values({**self.defaults, **options}, np.dtype(float))

    def valid_options(self) -> list[dict[str, Any]]:
        """All combinations of values other than the default that can change equations, the fewest changes first."""
        choices: dict[str, list[Any]] = {}
        for name, default in self.defaults.items():
            others = [not default] if isinstance(default, bool) else list(choices_of(self.kind._fields[name].type))
            if isinstance(default, float) and name != "lr":
                numbers = [value for value in (0.0, 0.5) if self.allows({name: value})]
                others = [value for value in numbers if self.rules({name: value}) != self.rules({})]
            elif default is None:
                others = [0.5]
            if name != "maximize":  # a sign on the gradient, in front of every rule
                choices[name] = [None, *(value for value in others if value != default)]
        combinations = itertools.product(*choices.values())
        chosen = ({n: v for n, v in zip(choices, values, strict=True) if v is not None} for values in combinations)
        return sorted(filter(self.allows, chosen), key=len)

    def equations(self, rule: str, options: Mapping[str, Any]) -> dict[str, tuple[Stage, ...]]:
        """The equations of all programs; what no number of the class changes is fixed, positive numbers are not 0."""
        hypers, nudged = {**self.defaults, **options}, {}
        for name, value in hypers.items():
            if isinstance(value, float):
                nudged[name] = 2.0 if value == np.inf else value + NUDGE
            elif isinstance(value, tuple):
                nudged[name] = tuple(0.5 if part is None else part - NUDGE for part in value)
        values, others = self.values(options), self.values({**options, **nudged})
        zeros = {name for name, value in hypers.items() if value == 0.0 and not self.allows({**options, name: 0.5})}
        tree = _schuss.rule_tree(rule)
        fixed = {name for name in tree["hypers"] if values[name] == others[name] or name in zeros}
        free = {name for name in tree["hypers"] if values[name] > 0 or name == "weight_decay"} - fixed
        constants = {name: sp.nsimplify(float(values[name])) for name in fixed}
        return {name: equations(tree, name, constants, free) for name in tree["programs"]}


def has_rules(kind: type[Optimizer]) -> bool:
    """Whether the class can say by itself which rule it uses; one that wraps any optimizer cannot."""
    try:
        return bool(Kernels(kind))
    except TypeError:
        return False


@cache
def variants(kind: type[Optimizer]) -> tuple[Variant, ...]:
    """The settings of a class that differ in their equations, the default first.

    They are, for each rule, the options that select it, each choice among forms, and each switch on top of these.
    """
    kernels = Kernels(kind)
    found = [(o, rule, ndims) for o in kernels.valid_options() for rule, ndims in kernels.rules(o).items()]

    def switches(options: Mapping[str, Any]) -> int:
        return sum(isinstance(value, bool) for value in options.values())

    needed: dict[str, int] = {}
    for options, rule, _ in found:
        needed[rule] = min(needed.get(rule, 99), switches(options))
    result: list[Variant] = []
    for options, rule, ndims in found:
        if switches(options) <= needed[rule] + 1:
            variant = Variant(options, rule, ndims, kernels.equations(rule, options))
            if not any((other.rule, other.programs) == (rule, variant.programs) for other in result):
                result.append(variant)
    return tuple(sorted(result, key=lambda variant: list(needed).index(variant.rule)))
