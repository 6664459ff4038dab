"""The optional schedule protocol: momentum, base rate, and saved state. No schedule class is known here.

A schedule is any callable from the step to a rate. The rest is optional, and only this module reads it:

- ``initial_lr``: the base rate;
- ``momentum(step)``: a momentum, or None for the optimizer's own; a false attribute ``sets_momentum`` says that it is
  always None;
- ``state_dict()`` and ``load_state_dict(state)``: a JSON-serializable state; None means that there is no state.

The package's own schedules also have ``_loaded(state)``, which checks a state and returns what changes with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from schuss import _schuss
from schuss._backends.protocol import Call, Change
from schuss._core import validate

AnySchedule = Callable[[int], float]


def initial_rate(place: str, schedule: Any) -> float:
    """The base rate: the schedule's `initial_lr`, or its rate at step 0."""
    first = getattr(schedule, "initial_lr", None)
    if first is None:
        return validate.scheduled_rate(place, schedule, 0)
    return validate.number(f"{place}.initial_lr", first)


def sets_momentum(schedule: Any) -> bool:
    """Whether the schedule sets the momentum of any step."""
    return callable(getattr(schedule, "momentum", None)) and bool(getattr(schedule, "sets_momentum", True))


def momentum(place: str, schedule: Any, step: int) -> float | None:
    """The momentum that the schedule sets for a step, checked; None if it sets none."""
    value = validate.without_arrays(schedule.momentum(step)) if sets_momentum(schedule) else None
    return None if value is None else validate.number(f"{place}.momentum({step})", value, high=1.0)


def state(schedule: Any) -> Any:
    """The state that a schedule keeps, or None."""
    if callable(getattr(schedule, "state_dict", None)) and callable(getattr(schedule, "load_state_dict", None)):
        return schedule.state_dict()
    return None


class Loading:
    """The loading of schedules' states: each is checked when it is added, and all are loaded by `make`.

    A schedule of the user's is loaded by its own method, before everything else changes, and gets its present state
    back if that does not happen.
    """

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._foreign: list[tuple[Any, Any]] = []

    def add(self, place: str, schedule: Any, own: Any) -> None:
        """Adds the state of a schedule; raises `ValueError` if it does not fit."""
        try:
            if hasattr(schedule, "_loaded"):
                loading = schedule._loaded(own)
                self.changes += loading.changes
                self._foreign += loading._foreign
            else:
                copy.deepcopy(schedule).load_state_dict(own)
                self._foreign.append((schedule, own))
        except (TypeError, ValueError, LookupError) as error:
            raise ValueError(f"{place} does not fit {schedule!r}: {error}") from error

    def make(self, prepare: Callable[[list[Change]], _schuss.Changes] = _schuss.Changes, *calls: Call) -> None:
        """Loads all states, together with other changes if `prepare` adds them to those of the schedules.

        The changes come after the user's schedules and these calls.
        """
        changes = prepare(self.changes)
        loads = [
            (schedule.load_state_dict, own, copy.deepcopy(schedule.state_dict())) for schedule, own in self._foreign
        ]
        changes.make_after([*loads, *calls])
