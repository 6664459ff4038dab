"""What the kernels say of their rules: hyperparameters, and states with scope and sign. It knows no class."""

from __future__ import annotations

from typing import NamedTuple

from schuss import _schuss
from schuss._arrays.formats import State


class Rule(NamedTuple):
    """One rule of the kernels."""

    #: The names of its hyperparameters, in the order of a group's values.
    hypers: tuple[str, ...]
    #: Its state arrays, in order.
    states: tuple[State, ...]


def _described(rule: _schuss._Rule) -> Rule:
    # A state whose name begins with v or s is a second moment, which is never negative; the kernels tell it so too.
    states = [State(name, "element", not name.startswith(("v", "s"))) for name in rule["states"]]
    return Rule(tuple(rule["hypers"]), tuple(states))


RULES = {name: _described(rule) for name, rule in _schuss.rules().items()}
