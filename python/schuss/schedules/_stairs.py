"""Schedules that multiply the rate by a factor, at some steps, at every step, or never."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from schuss._core import scheduling, validate
from schuss._core.scheduling import AnySchedule
from schuss.schedules._base import StartsAtLr, increasing, inner, number, scaled_power, whole


@dataclass(frozen=True)
class constant(StartsAtLr):
    r"""The same rate at every step, for use inside other schedules.

    .. math:: \eta_t = \eta

    Parameters
    ----------
    lr : float
        The rate :math:`\eta`, >= 0.

    Raises
    ------
    TypeError, ValueError
        `lr` is not such a number.

    Examples
    --------
    >>> from schuss import schedules
    >>> schedules.constant(0.1)(1000)
    0.1
    """

    lr: float

    def __post_init__(self) -> None:
        self._set_checked(lr=number("lr", self.lr))

    def _at(self, step: int) -> float:
        return self.lr


@dataclass(frozen=True)
class step(StartsAtLr):
    r"""Step decay: the rate is multiplied by a factor every `step_size` steps.

    .. math:: \eta_t = \eta \, \gamma^{\lfloor t / S \rfloor}

    Parameters
    ----------
    lr : float
        The first rate :math:`\eta`, >= 0.
    step_size : int
        The number :math:`S` of steps with the same rate, >= 1.
    gamma : float, default 0.1
        The factor :math:`\gamma`, > 0.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a number.

    Notes
    -----
    PyTorch's ``StepLR``.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.step(1.0, 2, gamma=0.5)
    >>> [rate(t) for t in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    lr: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        self._set_checked(
            lr=number("lr", self.lr),
            step_size=whole("step_size", self.step_size, 1),
            gamma=number("gamma", self.gamma, open_low=True),
        )

    def _at(self, step: int) -> float:
        return scaled_power(self.lr, self.gamma, step // self.step_size)


@dataclass(frozen=True)
class multi_step(StartsAtLr):
    r"""The rate is multiplied by a factor at given steps.

    .. math:: \eta_t = \eta \, \gamma^{n(t)}, \qquad n(t) = \text{the number of milestones} \le t

    Parameters
    ----------
    lr : float
        The first rate :math:`\eta`, >= 0.
    milestones : sequence of int
        The first step with each new rate: increasing, >= 1.
    gamma : float, default 0.1
        The factor :math:`\gamma`, > 0.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a number.

    Notes
    -----
    PyTorch's ``MultiStepLR``, which also takes milestones that are unsorted or repeated.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.multi_step(1.0, [2, 3], gamma=0.5)
    >>> [rate(t) for t in range(5)]
    [1.0, 1.0, 0.5, 0.25, 0.25]
    """

    lr: float
    milestones: Sequence[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        self._set_checked(
            lr=number("lr", self.lr),
            milestones=increasing("milestones", self.milestones),
            gamma=number("gamma", self.gamma, open_low=True),
        )

    def _at(self, step: int) -> float:
        return scaled_power(self.lr, self.gamma, bisect.bisect_right(self.milestones, step))


@dataclass(frozen=True)
class exponential(StartsAtLr):
    r"""The rate is multiplied by a factor at every step.

    .. math:: \eta_t = \eta \, \gamma^t

    Parameters
    ----------
    lr : float
        The first rate :math:`\eta`, >= 0.
    gamma : float
        The factor :math:`\gamma`, > 0. Above 1 the rate grows, as in a learning-rate range test.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a number.

    Notes
    -----
    PyTorch's ``ExponentialLR``.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.exponential(1.0, 0.5)
    >>> [rate(t) for t in range(4)]
    [1.0, 0.5, 0.25, 0.125]
    """

    lr: float
    gamma: float

    def __post_init__(self) -> None:
        self._set_checked(lr=number("lr", self.lr), gamma=number("gamma", self.gamma, open_low=True))

    def _at(self, step: int) -> float:
        return scaled_power(self.lr, self.gamma, step)


@dataclass(frozen=True)
class multiplicative(StartsAtLr):
    r"""The rate is multiplied by a factor at every step, which a function of the step returns.

    .. math:: \eta_t = \eta \prod_{i=1}^{t} f(i)

    The product is remembered, so a step after the one before costs one call of the function. Otherwise all its values
    are multiplied again: the rate of a step is always the same.

    Parameters
    ----------
    lr : float
        The first rate :math:`\eta`, >= 0.
    factor : callable
        The function :math:`f`, which returns a number >= 0; it is not called with 0. It keeps no state.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value.

    Notes
    -----
    PyTorch's ``MultiplicativeLR``.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.multiplicative(1.0, lambda step: 0.5 if step % 2 else 1.0)
    >>> [rate(t) for t in range(5)]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """

    lr: float
    factor: AnySchedule
    #: The last step and its rate.
    _last: tuple[int, float] = field(default=(0, 0.0), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lr = number("lr", self.lr)
        factor = inner("factor", self.factor)
        if scheduling.state(factor) is not None:  # its values of earlier steps would not be the same
            raise ValueError("factor keeps state; multiply a rate by it with schedules.chain")
        self._set_checked(lr=lr, factor=factor, _last=(0, lr))

    def _at(self, step: int) -> float:
        last = self._last  # read once: another thread may set it
        at, rate = last if last[0] <= step else (0, self.lr)
        for i in range(at + 1, step + 1):
            rate *= validate.scheduled_rate("factor", self.factor, i)
        self._set_checked(_last=(step, rate))
        return rate
