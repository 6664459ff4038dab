"""What the package asks of a schedule beside its rate: the momentum it sets, the base rate, the state it keeps.

A schedule is any callable from the step to a rate. All else is optional, and asked for here only:

- ``initial_lr``: the base rate;
- ``momentum(step)``: a momentum, or None for the optimizer's own; an attribute ``sets_momentum`` that is false says
  that it is always None;
- ``state_dict()`` and ``load_state_dict(state)``: a state that JSON can hold; a state of None is none at all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from schuss._core import validate

Rate = Callable[[int], float]


def initial_rate(place: str, schedule: Rate) -> float:
    """The base rate: what the schedule says of itself, or its rate at step 0."""
    first = getattr(schedule, "initial_lr", None)
    return validate.scheduled_rate(place, schedule, 0) if first is None else float(first)


def sets_momentum(schedule: Any) -> bool:
    """Whether some step's momentum comes from the schedule."""
    return callable(getattr(schedule, "momentum", None)) and bool(getattr(schedule, "sets_momentum", True))


def momentum(place: str, schedule: Any, step: int) -> float | None:
    """The momentum that the schedule sets for a step, checked; None where it sets none."""
    value = schedule.momentum(step) if sets_momentum(schedule) else None
    return None if value is None else validate.number(f"{place}.momentum({step})", value, high=1.0)


def state(schedule: Any) -> Any:
    """The state that a schedule keeps, or None."""
    if callable(getattr(schedule, "state_dict", None)) and callable(getattr(schedule, "load_state_dict", None)):
        return schedule.state_dict()
    return None


def restorer(place: str, schedules: Sequence[Any], states: Sequence[Any]) -> Callable[[], None]:
    """Checks states that are not None, on copies of their schedules; returns the function that hands them over."""
    pairs = [(schedule, own) for schedule, own in zip(schedules, states, strict=True) if own is not None]
    for schedule, own in pairs:
        try:
            copy.deepcopy(schedule).load_state_dict(own)
        except (TypeError, ValueError, LookupError) as error:
            raise ValueError(f"{place} does not fit {schedule!r}: {error}") from error

    def take() -> None:
        for schedule, own in pairs:
            schedule.load_state_dict(own)

    return take
