"""The optional schedule protocol: momentum, base rate, and saved state. No schedule class is known here.

A schedule is any callable from the step to a rate. The rest is optional, and is read only here:

- ``initial_lr``: the base rate;
- ``momentum(step)``: a momentum, or None for the optimizer's own; a false attribute ``sets_momentum`` says that it is
  always None;
- ``state_dict()`` and ``load_state_dict(state)``: a JSON-serializable state; None means that there is no state.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from schuss._core import validate

Rate = Callable[[int], float]


def initial_rate(place: str, schedule: Rate) -> float:
    """The base rate: the schedule's `initial_lr`, or its rate at step 0."""
    first = getattr(schedule, "initial_lr", None)
    return validate.scheduled_rate(place, schedule, 0) if first is None else float(first)


def sets_momentum(schedule: Any) -> bool:
    """Whether the schedule sets the momentum of any step."""
    return callable(getattr(schedule, "momentum", None)) and bool(getattr(schedule, "sets_momentum", True))


def momentum(place: str, schedule: Any, step: int) -> float | None:
    """The momentum that the schedule sets for a step, checked; None if it sets none."""
    value = schedule.momentum(step) if sets_momentum(schedule) else None
    return None if value is None else validate.number(f"{place}.momentum({step})", value, high=1.0)


def state(schedule: Any) -> Any:
    """The state that a schedule keeps, or None."""
    if callable(getattr(schedule, "state_dict", None)) and callable(getattr(schedule, "load_state_dict", None)):
        return schedule.state_dict()
    return None


def restorer(place: str, schedules: Sequence[Any], states: Sequence[Any]) -> Callable[[], None]:
    """Checks the states that are not None on copies of their schedules; returns a function that loads them."""
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
