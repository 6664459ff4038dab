"""Which rules a class uses under which settings, found by trying its options.

Everything is read from the class: its signature, the table of hyperparameters' checks, and the two class methods that
say which rule and which values some hyperparameters stand for. A class that joins the registry needs nothing here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import numpy as np
from rule_math import Case, cases

import schuss
from schuss import _schuss
from schuss._core.optimizer import Optimizer

RULES: Mapping[str, Any] = _schuss.rules()
_NUDGE = 0.0123  # added to a number to find out which of the rule's hyperparameters follow it


@dataclass(frozen=True)
class Variant:
    """One setting of a class that has equations of its own."""

    #: What to pass to the constructor.
    options: Mapping[str, Any]
    #: The name of the rule.
    rule: str
    #: The rule's hyperparameters that are fixed by the options, with their values.
    constants: Mapping[str, float]
    #: The equations: one set, or one for each condition.
    cases: tuple[Case, ...]


def optimizers() -> dict[str, type[Optimizer]]:
    """The classes that have a page: those of the registry, and those that wrap one."""
    kinds = dict(schuss.OPTIMIZERS)
    for name, thing in vars(schuss).items():
        if isinstance(thing, type) and issubclass(thing, Optimizer) and thing is not Optimizer:
            kinds.setdefault(name, thing)
    return kinds


class Kernels:
    """The class that does a class's work on elements, itself or the one it wraps, with its hyperparameters."""

    def __init__(self, kind: type[Optimizer]) -> None:
        made = kind(np.zeros((2, 2)), lr=1e-3)  # type: ignore[call-arg]
        inner = getattr(made, "optimizer", made)
        self.kind: type[Optimizer] = type(inner)
        self.defaults: dict[str, Any] = inner.param_groups[0].hypers

    def rule(self, options: Mapping[str, Any]) -> str:
        """The name of the rule that some options stand for."""
        return self.kind._rule({**self.defaults, **options})

    def allows(self, options: Mapping[str, Any]) -> bool:
        """Whether these options go together."""
        try:
            for name, value in options.items():
                self.kind._fields[name].check(name, value)
            self.kind._check({**self.defaults, **options})
        except (TypeError, ValueError):
            return False
        return True

    def alternatives(self) -> dict[str, list[Any]]:
        """For each option that can change the equations, its values other than the default."""
        result: dict[str, list[Any]] = {}
        for name, default in self.defaults.items():
            if name == "maximize":  # a sign on the gradient, in front of every rule
                continue
            if isinstance(default, bool):
                result[name] = [not default]
            elif isinstance(default, str):
                given = get_args(self.kind._fields[name].type)
                result[name] = [value for value in given if value != default]
            elif isinstance(default, float) and name != "lr":
                values = [value for value in (0.0, 0.5) if value != default and self.allows({name: value})]
                result[name] = [value for value in values if self.rule({name: value}) != self.rule({})]
        return {name: values for name, values in result.items() if values}

    def valid_options(self) -> list[dict[str, Any]]:
        """All combinations of the alternatives that go together, the fewest changes first."""
        alternatives = self.alternatives()
        found = []
        for combination in itertools.product(*([None, *values] for values in alternatives.values())):
            options = {name: v for name, v in zip(alternatives, combination, strict=True) if v is not None}
            if self.allows(options):
                found.append(options)
        return sorted(found, key=len)

    def constants(self, options: Mapping[str, Any]) -> dict[str, float]:
        """The rule's hyperparameters that no number of the class changes under these options."""
        hypers = {**self.defaults, **options}
        nudged = dict(hypers)
        for name, value in hypers.items():
            if isinstance(value, float):
                nudged[name] = value + _NUDGE
            elif isinstance(value, tuple):
                nudged[name] = tuple(v - _NUDGE for v in value)
        values, others = self.kind._rule_values(hypers), self.kind._rule_values(nudged)
        fixed = {name for name in RULES[self.rule(options)]["hypers"] if values[name] == others[name]}
        zeros = {name for name, value in hypers.items() if value == 0.0 and not self.allows({**options, name: 0.5})}
        return {name: float(values[name]) for name in RULES[self.rule(options)]["hypers"] if name in fixed | zeros}

    def nonzero(self, options: Mapping[str, Any]) -> set[str]:
        """Names that are taken not to be zero: what is a number above 0 here, and weight decay."""
        hypers = {**self.defaults, **options}
        numbers = {name for name, value in hypers.items() if isinstance(value, float) and value > 0.0}
        return numbers | {"step_size", "weight_decay"}


def has_rules(kind: type[Optimizer]) -> bool:
    """Whether the class can say by itself which rule it uses; one that wraps any optimizer cannot."""
    try:
        return Kernels(kind).rule({}) in RULES
    except TypeError:
        return False


def _switches(options: Mapping[str, Any]) -> int:
    return sum(isinstance(value, bool) for value in options.values())


@cache
def variants(kind: type[Optimizer]) -> tuple[Variant, ...]:
    """The settings of a class that differ in their equations, the default first.

    They are, for each rule, the options that select it, each choice among forms, and each switch on top of these.
    """
    kernels = Kernels(kind)
    valid = kernels.valid_options()
    needed = {rule: min(_switches(o) for o in valid if kernels.rule(o) == rule) for rule in map(kernels.rule, valid)}
    seen: set[tuple[str, tuple[Case, ...]]] = set()
    result = []
    for options in valid:
        rule, constants = kernels.rule(options), kernels.constants(options)
        found = cases(RULES[rule], rule, constants, kernels.nonzero(options))
        if (rule, found) not in seen and _switches(options) <= needed[rule] + 1:
            result.append(Variant(options, rule, constants, found))
        seen.add((rule, found))
    return tuple(sorted(result, key=lambda variant: list(needed).index(variant.rule)))
