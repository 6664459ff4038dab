"""The kernels' description of their rules: hyperparameters, and states with scope, sign and initial value.

No optimizer class is known here.
"""

from __future__ import annotations

from typing import NamedTuple

from schuss import _schuss
from schuss._arrays.formats import State


class Rule(NamedTuple):
    """One update rule of the kernels."""

    #: The names of its hyperparameters, in the order of a group's values.
    hypers: tuple[str, ...]
    #: The states of each array, in order.
    states: tuple[State, ...]
    #: What lives for one step only, behind the states; see `Owner._matrix_work`.
    scratch: tuple[State, ...]
    #: The states that all arrays share.
    shared: tuple[State, ...]
    #: Whether it works on rows or columns.
    needs_matrix: bool
    #: Whether an array can be updated in parts.
    elementwise: bool
    #: Whether an array's update depends on the other arrays.
    joint: bool


def _described(rule: _schuss._Rule) -> Rule:
    states, scratch = (
        [
            State(own["name"], own["scope"], not own["nonnegative"], own["exact"], own["initial"])
            for own in rule["states"]
            if own["scope"] != "backup" and own["scratch"] == for_one_step
        ]
        for for_one_step in (False, True)
    )
    own = tuple(state for state in states if state.scope != "all")
    shared = tuple(state for state in states if state.scope == "all")
    kinds = rule["needs_matrix"], rule["elementwise"], rule["joint"]
    return Rule(tuple(rule["hypers"]), own, tuple(scratch), shared, *kinds)


class _Rules(dict[str, Rule]):
    def __missing__(self, name: str) -> Rule:
        raise TypeError(
            f"there is no rule {name!r}; derive the class from one in schuss.OPTIMIZERS, or let its _rule return the "
            "name of one of their rules"
        )


RULES = _Rules({name: _described(rule) for name, rule in _schuss.rules().items()})
