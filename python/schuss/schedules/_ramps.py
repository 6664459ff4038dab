"""Schedules that go from one rate to another along a line or a power of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from schuss._core import validate
from schuss.schedules._base import Schedule, StartsAtLr, blend, number, whole


@dataclass(frozen=True)
class polynomial(StartsAtLr):
    r"""From one rate to another along a power of the remaining steps; then the last rate is kept.

    .. math:: \eta_t = \eta_{end} + (\eta - \eta_{end}) \left( 1 - \frac{\min(t, T)}{T} \right)^{k}

    Parameters
    ----------
    lr : float
        The first rate :math:`\eta`, >= 0.
    total_steps : int
        The step :math:`T` that has the last rate, >= 1.
    power : float, default 1.0
        The exponent :math:`k`, > 0.
    end : float, default 0.0
        The last rate :math:`\eta_{end}`, >= 0.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a number.

    Notes
    -----
    PyTorch's ``PolynomialLR`` always ends at 0.

    References
    ----------
    The "poly" policy: Liu, Rabinovich and Berg, arXiv:1506.04579.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.polynomial(1.0, 4, power=2.0)
    >>> [rate(t) for t in range(6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """

    lr: float
    total_steps: int
    power: float = 1.0
    end: float = 0.0

    def __post_init__(self) -> None:
        self._set_checked(
            lr=number("lr", self.lr),
            total_steps=whole("total_steps", self.total_steps, 1),
            power=number("power", self.power, open_low=True),
            end=number("end", self.end),
        )

    def _at(self, step: int) -> float:
        left = self.total_steps - min(step, self.total_steps)
        return blend(self.lr, self.end, (left / self.total_steps) ** self.power)


@dataclass(frozen=True)
class linear(Schedule):
    r"""From one rate to another along a straight line, up or down; then the last rate is kept.

    .. math:: \eta_t = \eta_{start} + (\eta_{end} - \eta_{start}) \frac{\min(t, T)}{T}

    Parameters
    ----------
    start : float
        The first rate :math:`\eta_{start}`, >= 0.
    end : float
        The last rate :math:`\eta_{end}`, >= 0.
    total_steps : int
        The step :math:`T` that has the last rate, >= 1.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a number.

    Notes
    -----
    PyTorch's ``LinearLR``, which takes the two rates as multiples of the optimizer's.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.linear(0.0, 1.0, 4)
    >>> [rate(t) for t in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    start: float
    end: float
    total_steps: int

    def __post_init__(self) -> None:
        self._set_checked(
            start=number("start", self.start),
            end=number("end", self.end),
            total_steps=whole("total_steps", self.total_steps, 1),
        )

    def _at(self, step: int) -> float:
        left = self.total_steps - min(step, self.total_steps)
        return blend(self.start, self.end, left / self.total_steps)

    @property
    def initial_lr(self) -> float:
        """The larger of the two rates."""
        return max(self.start, self.end)


@dataclass(frozen=True)
class inverse_time(StartsAtLr):
    r"""The inverse of a number that grows with the step, evenly or in stairs.

    .. math:: \eta_t = \frac{\eta}{1 + k \, t / T}

    Parameters
    ----------
    lr : float
        The first rate :math:`\eta`, >= 0.
    decay_rate : float
        :math:`k` >= 0.
    decay_steps : int, default 1
        The steps :math:`T` in which the denominator grows by `decay_rate`, >= 1.
    staircase : bool, default False
        Round :math:`t / T` down.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value.

    Notes
    -----
    Keras's ``InverseTimeDecay``.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.inverse_time(1.0, 0.5, 2)
    >>> [round(rate(t), 4) for t in range(5)]
    [1.0, 0.8, 0.6667, 0.5714, 0.5]
    """

    lr: float
    decay_rate: float
    decay_steps: int = 1
    staircase: bool = False

    def __post_init__(self) -> None:
        self._set_checked(
            lr=number("lr", self.lr),
            decay_rate=number("decay_rate", self.decay_rate),
            decay_steps=whole("decay_steps", self.decay_steps, 1),
            staircase=validate.flag("staircase", self.staircase),
        )

    def _at(self, step: int) -> float:
        step = min(step, self.decay_steps * 10**300)  # its quotient is a float for any step
        passed = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.lr / (1.0 + self.decay_rate * passed)


@dataclass(frozen=True)
class inverse_sqrt(Schedule):
    r"""A linear ramp up, then down with the square root of the step: the Transformer's schedule.

    .. math:: \eta_t = \eta \min \left( \frac{t + 1}{W}, \sqrt{\frac{W}{t + 1}} \right)

    The paper counts steps from 1, hence :math:`t + 1`: the first step has :math:`\eta / W`, which is above 0, and step
    :math:`W - 1` has :math:`\eta`. In the paper :math:`\eta = (d_{model} W)^{-1/2}`.

    Parameters
    ----------
    lr : float
        The largest rate :math:`\eta`, >= 0.
    warmup_steps : int
        The length :math:`W` of the ramp, >= 1; 1 means no ramp.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a number.

    Notes
    -----
    The Transformers library starts one step earlier, at 0:
    ``join([linear(0, lr, W), lambda t: lr * math.sqrt(W / (t + W))], [W])``.

    References
    ----------
    Vaswani et al., arXiv:1706.03762, equation 3.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.inverse_sqrt(1.0, 4)
    >>> [rate(t) for t in (0, 1, 2, 3, 15, 63)]
    [0.25, 0.5, 0.75, 1.0, 0.5, 0.25]
    """

    lr: float
    warmup_steps: int

    def __post_init__(self) -> None:
        self._set_checked(lr=number("lr", self.lr), warmup_steps=whole("warmup_steps", self.warmup_steps, 1))

    def _at(self, step: int) -> float:
        count, peak = step + 1, self.warmup_steps
        return self.lr * (count / peak if count < peak else math.sqrt(peak / count))

    @property
    def initial_lr(self) -> float:
        """The largest rate."""
        return self.lr
