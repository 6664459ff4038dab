"""Finds the rules that a class uses under its settings, by trying its options.

Everything is read from the class and from the rules' trees, so a new class needs no change here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import sympy as sp
from rule_tree import Stage, equations

from schuss import _schuss
from schuss._core.hyperparameters import choices_of
from schuss._core.optimizer import Optimizer

ARRAYS = [np.zeros((2, 2)), np.zeros(2)]


class Variant(NamedTuple):
    """One setting of a class, with its equations."""

    options: Mapping[str, Any]
    rule: str
    ndims: tuple[int, ...]  # of the arrays that use the rule
    programs: Mapping[str, tuple[Stage, ...]]


class Kernels:
    """The class that updates the elements (for a wrapper, that of the wrapped optimizer), and its hyperparameters."""

    def __init__(self, kind: type[Optimizer]) -> None:
        made = kind(ARRAYS[0].copy(), lr=1e-3)  # type: ignore[call-arg]
        inner = getattr(made, "optimizer", made)
        self.kind: type[Optimizer] = type(inner)
        self.defaults: dict[str, Any] = inner.param_groups[0].hypers

    def allows(self, options: Mapping[str, Any]) -> bool:
        """Whether these options are valid together."""
        try:
            for name, value in options.items():
                self.kind._parameters[name].check(name, value)
            self.kind._check({**self.defaults, **options})
        except (TypeError, ValueError):
            return False
        return True

    def rules(self, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """The names of the rules for these options, with the numbers of dimensions of arrays that use them."""
        rules = {array.ndim: self.kind._array_rule({**self.defaults, **options}, array) for array in ARRAYS}
        return {rule: tuple(n for n, other in rules.items() if other == rule) for rule in rules.values()}

    def values(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values of the rule's hyperparameters, for a float64 array."""
        hypers = {**self.defaults, **options}
        return {**self.kind._typed_rule_values(hypers, np.dtype(float)), "initial_lr": hypers["lr"]}

    def options_of_names(self) -> dict[str, str]:
        """What each name in the rule is, in words: an option, or an entry of one; each is tried with its own number."""
        numbers = (i / 128 for i in itertools.count(1))
        given: dict[str, Any] = {}
        words: dict[Any, str] = {}
        for option, default in self.defaults.items():
            if isinstance(default, tuple):
                given[option] = tuple(itertools.islice(numbers, len(default)))
                words |= {number: f"``{option}[{i}]``" for i, number in enumerate(given[option])}
            elif not isinstance(default, (bool, str)):
                given[option] = next(numbers)
                words[given[option]] = f"``{option}``"
        found = {name: words[value] for name, value in self.values(given).items() if value in words}
        return {**{option: f"``{option}``" for option in self.defaults}, **found, "initial_lr": "the first ``lr``"}

    def valid_options(self) -> list[dict[str, Any]]:
        """All combinations of non-default values that can change equations, those with the fewest changes first."""
        choices: dict[str, list[Any]] = {}
        for name, default in self.defaults.items():
            others = [not default] if isinstance(default, bool) else list(choices_of(self.kind._parameters[name].type))
            if isinstance(default, float) and name != "lr":
                numbers = [value for value in (0.0, 0.5) if self.allows({name: value})]
                others = [value for value in numbers if self.rules({name: value}) != self.rules({})]
            elif default is None and not others:
                others = [0.5]
            if name != "maximize":  # it is in the prologue
                choices[name] = [None, *(value for value in others if value != default)]
        combinations = itertools.product(*choices.values())
        chosen = ({n: v for n, v in zip(choices, values, strict=True) if v is not None} for values in combinations)
        return sorted(filter(self.allows, chosen), key=len)

    def equations(self, rule: str, options: Mapping[str, Any]) -> dict[str, tuple[Stage, ...]]:
        """The equations of all programs, with the values of flags, and of options that must be zero here."""
        hypers, values = {**self.defaults, **options}, self.values(options)
        others = {name: [{**options, name: value} for value in (0.5, 1)] for name in hypers if hypers[name] == 0.0}
        zeros = [name for name, changed in others.items() if not any(map(self.allows, changed))]
        tree = _schuss.rule_tree(rule)
        fixed = {name for name in tree["hypers"] if isinstance(values[name], bool) or name in zeros}
        free = {name for name in tree["hypers"] if values[name] > 0 or name == "weight_decay"} - fixed
        constants = {name: sp.Integer(int(values[name])) for name in fixed}
        return {name: equations(tree, name, constants, free) for name in tree["programs"]}


@cache
def variants(kind: type[Optimizer]) -> tuple[Variant, ...]:
    """The settings of a class that differ in their equations, the default first.

    For each rule these are the options that select it, with each choice among forms, and with each flag changed.
    """
    kernels, needed, found = Kernels(kind), dict[str, int](), dict[Any, Variant]()
    for options in kernels.valid_options():
        switches = sum(isinstance(value, bool) for value in options.values())
        for rule, ndims in kernels.rules(options).items():
            if switches <= needed.setdefault(rule, switches) + 1:
                programs = kernels.equations(rule, options)
                found.setdefault((rule, *programs.items()), Variant(options, rule, ndims, programs))
    return tuple(found.values())
