"""Cosine annealing: once, back and forth, or with restarts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from schuss._core.hyperparameters import check_of
from schuss.schedules._base import Schedule, blend, fraction, number, whole

After = Literal["hold", "periodic"]
_AFTER = check_of(After)


def half_cosine(part: float) -> float:
    """From exactly 1 at 0 to exactly 0 at 1, along half a period of the cosine."""
    return (1.0 + math.cos(math.pi * part)) / 2.0


@dataclass(frozen=True)
class cosine(Schedule):
    r"""Cosine annealing: from one rate to another along half a cosine.

    .. math:: \eta_t = \eta_{min} + (\eta_{max} - \eta_{min}) \frac{1 + \cos(\pi t / T)}{2}

    Parameters
    ----------
    lr_max : float
        The first rate :math:`\eta_{max}`, >= 0.
    lr_min : float
        The lowest rate :math:`\eta_{min}`, >= 0 and at most `lr_max`.
    T : int
        The step with the lowest rate, >= 1.
    after : {"hold", "periodic"}, default "hold"
        After step `T` the rate stays lowest, or the cosine continues: up again until step :math:`2T`, and so on.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a number or name.

    Notes
    -----
    PyTorch's ``CosineAnnealingLR`` is periodic.

    References
    ----------
    Loshchilov and Hutter, arXiv:1608.03983, equation 5.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.cosine(1.0, 0.0, 2)
    >>> [round(rate(t), 9) for t in range(6)]
    [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]
    >>> rate = schedules.cosine(1.0, 0.0, 2, after="periodic")
    >>> [round(rate(t), 9) for t in range(6)]
    [1.0, 0.5, 0.0, 0.5, 1.0, 0.5]
    """

    lr_max: float
    lr_min: float
    T: int
    after: After = "hold"

    def __post_init__(self) -> None:
        lr_max = number("lr_max", self.lr_max)
        self._set_checked(
            lr_max=lr_max,
            lr_min=fraction("lr_min", self.lr_min, lr_max),
            T=whole("T", self.T, 1),
            after=_AFTER("after", self.after),
        )

    def _at(self, step: int) -> float:
        # Reduced to [0, T] in integers: exactly symmetric, and exact for any step.
        if self.after == "periodic":
            step %= 2 * self.T
            step = min(step, 2 * self.T - step)
        return blend(self.lr_max, self.lr_min, half_cosine(min(step, self.T) / self.T))

    @property
    def initial_lr(self) -> float:
        """The largest rate."""
        return self.lr_max


@dataclass(frozen=True)
class cosine_restarts(Schedule):
    r"""Cosine annealing with warm restarts (SGDR), in periods of constant or growing length.

    .. math:: \eta_t = \eta_{min} + (\eta_{max} - \eta_{min}) \, d^i \, \frac{1 + \cos(\pi \, T_{cur} / T_i)}{2}

    :math:`T_{cur}` is the number of steps since the last restart, and :math:`T_i = T_0 \, T_{mult}^i` the length of
    period :math:`i`, counted from 0; neither needs to be a whole number. With whole ones the lowest rate is never quite
    reached: the step that would have it starts the next period.

    Parameters
    ----------
    lr_max : float
        The rate :math:`\eta_{max}` at each restart, >= 0.
    lr_min : float
        The lowest rate :math:`\eta_{min}`, >= 0 and at most `lr_max`.
    T_0 : int
        The length of the first period, >= 1.
    T_mult : float, default 1
        How many times longer each period is than the one before, >= 1.
    decay : float, default 1.0
        What the peak's height above `lr_min` is multiplied by at each restart: :math:`d`, > 0 and <= 1.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a number.

    Notes
    -----
    PyTorch's ``CosineAnnealingWarmRestarts``; ``decay`` is the ``m_mul`` of Keras's ``CosineDecayRestarts``.

    References
    ----------
    Loshchilov and Hutter, arXiv:1608.03983.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.cosine_restarts(1.0, 0.0, 2, T_mult=2)
    >>> [round(rate(t), 4) for t in range(7)]
    [1.0, 0.5, 1.0, 0.8536, 0.5, 0.1464, 1.0]
    """

    lr_max: float
    lr_min: float
    T_0: int
    T_mult: float = 1
    decay: float = 1.0

    def __post_init__(self) -> None:
        lr_max = number("lr_max", self.lr_max)
        self._set_checked(
            lr_max=lr_max,
            lr_min=fraction("lr_min", self.lr_min, lr_max),
            T_0=whole("T_0", self.T_0, 1),
            T_mult=number("T_mult", self.T_mult, 1.0),
            decay=number("decay", self.decay, high=1.0, open_low=True, closed_high=True),
        )

    def _at(self, step: int) -> float:
        period, part = self._period(step)
        peak = self.lr_min + (self.lr_max - self.lr_min) * self.decay ** min(period, 2**53)
        return blend(peak if period else self.lr_max, self.lr_min, half_cosine(part))

    def _period(self, step: int) -> tuple[int, float]:
        """The number of the step's period, and the part of it that has passed."""
        ratio = self.T_mult
        if ratio == 1.0:
            return step // self.T_0, step % self.T_0 / self.T_0
        if ratio.is_integer():  # exact for any step
            length, period = self.T_0, 0
            while step >= length:
                step, length, period = step - length, length * int(ratio), period + 1
            return period, step / length
        # In units of the first period, period i begins at (ratio**i - 1) / (ratio - 1).
        passed, log = min(step, self.T_0 * 10**300) / self.T_0, math.log(ratio)
        period = int(math.log1p(passed * (ratio - 1.0)) / log)
        begin = math.expm1(period * log) / (ratio - 1.0)
        part = (passed - begin) / math.exp(period * log)
        # Rounding must not turn the first step of a period, the highest, into the end of the one before, the lowest.
        return (period, max(part, 0.0)) if part < 1.0 - 1e-12 else (period + 1, 0.0)

    @property
    def initial_lr(self) -> float:
        """The rate at each restart."""
        return self.lr_max
