"""Shared by all schedules: base classes, argument checks, interpolation with exact ends. It knows no schedule."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from schuss._core import scheduling, validate
from schuss._core.scheduling import AnySchedule

number = validate.number
whole = validate.whole_number


class Schedule(validate.Frozen, ABC):
    """The base class of all schedules: a learning rate as a function of the step.

    An optimizer accepts any function of the step as ``lr``; this class only adds argument checks. A subclass defines
    ``_at(step)`` and ``initial_lr``.

    Examples
    --------
    >>> from schuss import schedules
    >>> isinstance(schedules.constant(0.1), schedules.Schedule)
    True
    """

    def __call__(self, step: int) -> float:
        """The learning rate of a step.

        Parameters
        ----------
        step : int
            A whole number >= 0; the first step is 0.

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            `step` is not such a number.
        """
        return self._at(whole("step", step))

    @abstractmethod
    def _at(self, step: int) -> float:
        """The rate of a step, which has been checked."""

    @property
    @abstractmethod
    def initial_lr(self) -> float:
        """The base rate, or the peak: what AdamW's ``decay_form="independent"`` divides by."""

    @property
    def sets_momentum(self) -> bool:
        """Whether :meth:`momentum` ever returns a number."""
        return False

    def momentum(self, step: int) -> float | None:
        """The momentum of a step, which an optimizer uses for its ``momentum`` or for the first of its ``betas``.

        Parameters
        ----------
        step : int
            A whole number >= 0; the first step is 0.

        Returns
        -------
        float or None
            None: the optimizer uses its own.

        Raises
        ------
        TypeError, ValueError
            `step` is not such a number.
        """
        return self._momentum_at(whole("step", step))

    def _momentum_at(self, step: int) -> float | None:
        return None


class StartsAtLr(Schedule):
    """A schedule whose base rate is its parameter ``lr``."""

    lr: float

    @property
    def initial_lr(self) -> float:
        """The first rate."""
        return self.lr


class Composed(Schedule):
    """A schedule made of others, or of the one `schedule`; its state is their states."""

    schedule: AnySchedule

    @property
    def _parts(self) -> tuple[AnySchedule, ...]:
        return (self.schedule,)

    @property
    def sets_momentum(self) -> bool:
        """Whether :meth:`momentum` ever returns a number."""
        return any(scheduling.sets_momentum(part) for part in self._parts)

    def state_dict(self) -> dict[str, Any] | None:
        """The states of the inner schedules, in order, JSON-serializable; None if none of them has state.

        Returns
        -------
        dict or None
        """
        states = [scheduling.state(part) for part in self._parts]
        return None if all(state is None for state in states) else {"parts": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the result of :meth:`state_dict`; on an error nothing has changed.

        Parameters
        ----------
        state : dict
            From a schedule made of the same parts.

        Raises
        ------
        TypeError, ValueError
            It is not such a state.
        """
        self._loaded(state).make()

    def _loaded(self, state: Any) -> scheduling.Loading:
        """What changes when a state is loaded, which is checked."""
        states = state.get("parts") if isinstance(state, Mapping) else None
        own = [scheduling.state(part) is None for part in self._parts]
        if not isinstance(states, (list, tuple)) or [given is None for given in states] != own:
            raise ValueError(f"the state of a {type(self).__name__} must be a dict with 'parts', one for each schedule")
        loading = scheduling.Loading()
        for part, given in zip(self._parts, states, strict=True):
            if given is not None:
                loading.add("the state", part, given)
        return loading


def fraction(place: str, value: Any, most: float = 1.0) -> float:
    """The value as a float in [0, most]."""
    return number(place, value, high=most, closed_high=True)


def increasing(place: str, values: Any) -> tuple[int, ...]:
    """The values as a tuple of ints, each at least 1 and larger than the one before."""
    if not isinstance(values, (list, tuple, np.ndarray)):
        raise TypeError(f"{place} must be a list of increasing whole numbers >= 1, got {values!r}")
    result = tuple(whole(f"{place}[{i}]", value, 1) for i, value in enumerate(values))
    if any(later <= earlier for earlier, later in itertools.pairwise(result)):
        raise ValueError(f"{place} must be increasing, got {values!r}")
    return result


def inner(place: str, value: Any) -> AnySchedule:
    """The value, if it can be called with a step."""
    if not validate.is_schedule(value):
        raise TypeError(f"{place} must be a callable of the step, such as schedules.constant(0.1), got {value!r}")
    return cast(AnySchedule, value)


def power(base: float, exponent: float) -> float:
    """The power of a number >= 0; infinity on overflow, which the optimizer rejects with a message."""
    try:
        return float(base**exponent)
    except OverflowError:  # also if only the exponent is too large
        return math.inf if base > 1 else float(base == 1)


def scaled_power(factor: float, base: float, exponent: float) -> float:
    """A factor times such a power; 0 stays 0."""
    return factor * power(base, exponent) if factor else 0.0


def blend(start: float, end: float, weight: float) -> float:
    """`end + (start - end) * weight`: exactly `start` at 1, exactly `end` at 0, monotone and never outside."""
    if weight == 1.0:
        return start
    low, high = (start, end) if start <= end else (end, start)
    return min(max(end + (start - end) * weight, low), high)
