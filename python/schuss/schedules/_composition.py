"""Schedules made of others: one after the other, one times others, or one times a factor."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schuss._core import scheduling, validate
from schuss._core.scheduling import AnySchedule
from schuss.schedules._base import Composed, increasing, inner, number


@dataclass(frozen=True)
class join(Composed):
    r"""One schedule after the other, each from its own step 0.

    .. math:: \eta_t = \eta^{(i)}_{t - b_i} \quad \text{for } b_i \le t < b_{i+1}, \qquad b_0 = 0

    Parameters
    ----------
    schedules : sequence of callable
        The schedules :math:`\eta^{(i)}`, at least one; any function of the step.
    boundaries : sequence of int
        The step at which each schedule but the first starts: increasing, >= 1.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a sequence.

    Notes
    -----
    PyTorch's ``SequentialLR`` and Optax's ``join_schedules``. ``initial_lr`` is the largest of the schedules'.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.join([schedules.constant(1.0), schedules.linear(0.5, 0.0, 2)], [3])
    >>> [rate(t) for t in range(7)]
    [1.0, 1.0, 1.0, 0.5, 0.25, 0.0, 0.0]
    """

    schedules: Sequence[AnySchedule]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        parts = _inner(self.schedules)
        boundaries = increasing("boundaries", self.boundaries)
        if len(boundaries) != len(parts) - 1:
            raise ValueError(
                f"boundaries must have one entry fewer than schedules, {len(parts) - 1}, got {len(boundaries)}"
            )
        self._set_checked(schedules=parts, boundaries=boundaries)

    @property
    def _parts(self) -> tuple[AnySchedule, ...]:
        return tuple(self.schedules)

    def _find(self, step: int) -> tuple[str, AnySchedule, int]:
        i = bisect.bisect_right(self.boundaries, step)
        return f"schedules[{i}]", self.schedules[i], step - self.boundaries[i - 1] if i else step

    def _at(self, step: int) -> float:
        return validate.scheduled_rate(*self._find(step))

    def _momentum_at(self, step: int) -> float | None:
        return scheduling.momentum(*self._find(step))

    @property
    def initial_lr(self) -> float:
        """The largest of the schedules' base rates."""
        return max(scheduling.initial_rate(f"schedules[{i}]", part) for i, part in enumerate(self.schedules))


@dataclass(frozen=True)
class chain(Composed):
    r"""The product of several schedules, all from step 0: a rate times factors.

    .. math:: \eta_t = \prod_i \eta^{(i)}_t

    Parameters
    ----------
    schedules : sequence of callable
        The schedules :math:`\eta^{(i)}`, at least one; any function of the step. All but one usually begin at 1.

    Raises
    ------
    TypeError, ValueError
        It is not such a sequence.

    Notes
    -----
    PyTorch's ``ChainedScheduler``, whose schedulers each multiply the optimizer's rate. The last schedule that sets a
    momentum determines it. ``initial_lr`` is the product of the schedules'.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.chain([schedules.exponential(0.5, 0.5), schedules.linear(0.5, 1.0, 2)])
    >>> [rate(t) for t in range(4)]
    [0.25, 0.1875, 0.125, 0.0625]
    """

    schedules: Sequence[AnySchedule]

    def __post_init__(self) -> None:
        self._set_checked(schedules=_inner(self.schedules))

    @property
    def _parts(self) -> tuple[AnySchedule, ...]:
        return tuple(self.schedules)

    def _at(self, step: int) -> float:
        parts = enumerate(self.schedules)
        return math.prod(validate.scheduled_rate(f"schedules[{i}]", part, step) for i, part in parts)

    def _momentum_at(self, step: int) -> float | None:
        momenta = [scheduling.momentum(f"schedules[{i}]", part, step) for i, part in enumerate(self.schedules)]
        return next((momentum for momentum in reversed(momenta) if momentum is not None), None)

    @property
    def initial_lr(self) -> float:
        """The product of the schedules' base rates."""
        return math.prod(scheduling.initial_rate(f"schedules[{i}]", part) for i, part in enumerate(self.schedules))


def _inner(schedules: Any) -> tuple[AnySchedule, ...]:
    if not isinstance(schedules, (list, tuple)) or not schedules:
        raise TypeError(f"schedules must be a list of callables of the step, got {schedules!r}")
    return tuple(inner(f"schedules[{i}]", part) for i, part in enumerate(schedules))


@dataclass(frozen=True)
class scale(Composed):
    r"""A schedule times a factor, for example for a group that learns more slowly.

    .. math:: \eta_t = c \, \eta'_t

    Parameters
    ----------
    schedule : callable
        The schedule :math:`\eta'`; any function of the step. Its momentum is not scaled.
    factor : float
        The factor :math:`c`, >= 0.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.scale(schedules.linear(1.0, 0.0, 2), 0.5)
    >>> [rate(t) for t in range(4)]
    [0.5, 0.25, 0.0, 0.0]
    """

    schedule: AnySchedule
    factor: float

    def __post_init__(self) -> None:
        self._set_checked(schedule=inner("schedule", self.schedule), factor=number("factor", self.factor))

    def _at(self, step: int) -> float:
        return self.factor * validate.scheduled_rate("schedule", self.schedule, step)

    def _momentum_at(self, step: int) -> float | None:
        return scheduling.momentum("schedule", self.schedule, step)

    @property
    def initial_lr(self) -> float:
        """The inner schedule's base rate times the factor."""
        return self.factor * scheduling.initial_rate("schedule", self.schedule)
