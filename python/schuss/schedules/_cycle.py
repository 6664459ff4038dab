"""Cycles: the rate goes up and down, once or again and again; the momentum goes the opposite way."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

from schuss._core import validate
from schuss._core.hyperparameters import Pair, check_of
from schuss.schedules._annealing import half_cosine
from schuss.schedules._base import Schedule, blend, fraction, number, scaled_power, whole

Anneal = Literal["cos", "linear"]
ANNEAL = check_of(Anneal)
_PAIR = check_of(Pair)
Mode = Literal["triangular", "triangular2", "exp_range"]
_MODE = check_of(Mode)


class _Cycle(Schedule):
    """The base of cycles: a dataclass whose field `momentum_range` is its parameter ``momentum``."""

    max_lr: float
    momentum_range: tuple[float, float] | None

    def __repr__(self) -> str:
        values = [(field.name, getattr(self, field.name)) for field in fields(cast(Any, self))]
        listed = ", ".join(f"{name.removesuffix('_range')}={value!r}" for name, value in values)
        return f"{type(self).__name__}({listed})"

    @property
    def initial_lr(self) -> float:
        """The largest rate."""
        return self.max_lr

    @property
    def sets_momentum(self) -> bool:
        """Whether a momentum range was given."""
        return self.momentum_range is not None

    def _momentum_at(self, step: int) -> float | None:
        return None if self.momentum_range is None else self._momentum_between(*self.momentum_range, step)

    @abstractmethod
    def _momentum_between(self, low: float, high: float, step: int) -> float:
        """The momentum of a step, between these two."""


@dataclass(frozen=True, init=False, repr=False)
class one_cycle(_Cycle):
    r"""The one-cycle policy: the rate goes up to a maximum and down to almost nothing, the momentum down and up.

    Between two boundaries, with :math:`w` the remaining fraction of the phase,

    .. math::

       & \eta_t = \eta_{to} + (\eta_{from} - \eta_{to}) f(w) \\
       & f(w) = \frac{1 + \cos(\pi (1 - w))}{2} \text{ or } w

    =========  ==============================  =====================  ============================
    phase      until step                      rate                   momentum
    =========  ==============================  =====================  ============================
    1          :math:`pN - 1`                  initial to `max_lr`    highest to lowest
    2          :math:`2pN - 2`, three phases   `max_lr` to initial    lowest to highest
    last       :math:`N - 1`                   on to the final rate   to the highest, or stays so
    =========  ==============================  =====================  ============================

    Initial is ``max_lr / div_factor``, final is ``max_lr / div_factor / final_div_factor``. The boundaries are
    PyTorch's and need not be whole numbers: the largest rate is then only approximately reached.

    Parameters
    ----------
    max_lr : float
        The largest rate, >= 0.
    total_steps : int
        The number of steps :math:`N`, >= 1. After the last, rate and momentum stay constant; PyTorch raises an error.
    pct_start : float, default 0.3
        The fraction :math:`p` of the steps in which the rate goes up: >= 0 and <= 1, or <= 0.5 with three phases.
    div_factor : float, default 25.0
        `max_lr` divided by the initial rate, > 0.
    final_div_factor : float, default 1e4
        The initial rate divided by the final one, > 0.
    anneal : {"cos", "linear"}, default "cos"
        How values between boundaries are interpolated.
    three_phase : bool, default False
        Return to the initial rate in as many steps as the rate went up, then go on to the final rate.
    momentum : pair of float or None, default (0.85, 0.95)
        The lowest momentum, at the largest rate, and the highest: in [0, 1). An optimizer with a hyperparameter
        ``momentum``, which must be above 0, uses this instead; one with ``betas`` uses it instead of the first of them.
        None leaves the optimizer's momentum alone.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value.

    Notes
    -----
    PyTorch's ``OneCycleLR``; its ``cycle_momentum=False`` is ``momentum=None``. The paper's policy is
    ``anneal="linear", three_phase=True``.

    References
    ----------
    Smith and Topin, arXiv:1708.07120.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> from schuss import schedules
    >>> rate = schedules.one_cycle(1.0, 11, pct_start=3 / 11, div_factor=4, anneal="linear", momentum=(0.75, 1 - 2**-5))
    >>> [round(rate(t), 4) for t in range(11)]
    [0.25, 0.625, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]
    >>> rate.momentum(2), rate.momentum(10)
    (0.75, 0.96875)
    >>> opt = schuss.SGD(np.ones(3), lr=rate, momentum=0.9)
    """

    max_lr: float
    total_steps: int
    pct_start: float
    div_factor: float
    final_div_factor: float
    anneal: str
    three_phase: bool
    momentum_range: tuple[float, float] | None

    def __init__(
        self,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        anneal: Anneal = "cos",
        three_phase: bool = False,
        momentum: tuple[float, float] | None = (0.85, 0.95),
    ) -> None:
        # Written out because a field cannot have the name of the method `momentum`.
        self._set_checked(
            max_lr=number("max_lr", max_lr),
            total_steps=whole("total_steps", total_steps, 1, 2**63),
            three_phase=validate.flag("three_phase", three_phase),
            pct_start=fraction("pct_start", pct_start, 0.5 if three_phase else 1.0),
            div_factor=number("div_factor", div_factor, open_low=True),
            final_div_factor=number("final_div_factor", final_div_factor, open_low=True),
            anneal=ANNEAL("anneal", anneal),
            momentum_range=None if momentum is None else _momenta(momentum),
        )

    def _phase(self, step: int) -> tuple[int, float]:
        """The phase of a step, counted backwards from the last, -1, and the remaining part of it, 1 to 0."""
        last = self.total_steps - 1
        ends = [self.pct_start * self.total_steps - 1.0]
        if self.three_phase:
            ends.append(2 * self.pct_start * self.total_steps - 2.0)
        begin, step = 0.0, min(step, last)
        for phase, end in enumerate([*ends, float(last)], start=-1 - len(ends)):
            if step <= end or phase == -1:
                # A phase of length zero is already at its end.
                part = (step - begin) / (end - begin) if end != begin else 1.0
                return phase, half_cosine(part) if self.anneal == "cos" else 1.0 - part
            begin = end
        raise AssertionError

    def _at(self, step: int) -> float:
        phase, left = self._phase(step)
        first = self.max_lr / self.div_factor
        turns = [first, self.max_lr, first] if self.three_phase else [first, self.max_lr]
        turns.append(first / self.final_div_factor)
        return blend(turns[phase - 1], turns[phase], left)

    def _momentum_between(self, low: float, high: float, step: int) -> float:
        phase, left = self._phase(step)
        turns = [high, low, high, high] if self.three_phase else [high, low, high]
        return blend(turns[phase - 1], turns[phase], left)


@dataclass(frozen=True, init=False, repr=False)
class cyclic(_Cycle):
    r"""Cyclical learning rates: up from a base rate along a line, down again, and so on; the momentum down and up.

    With the part :math:`x` of the way up, from 0 at the base to 1 at the peak, and the number :math:`c` of the cycle,
    counted from 0,

    .. math::

       & \eta_t = \eta_{base} + (\eta_{max} - \eta_{base}) \, x \, f_t \\
       & \mu_t = \mu_{max} - (\mu_{max} - \mu_{base}) \, x \, f_t

    =================  ====================
    mode               :math:`f_t`
    =================  ====================
    ``"triangular"``   1
    ``"triangular2"``  :math:`2^{-c}`
    ``"exp_range"``    :math:`\gamma^t`
    =================  ====================

    Parameters
    ----------
    base_lr : float
        The lowest rate :math:`\eta_{base}`, >= 0.
    max_lr : float
        The rate :math:`\eta_{max}` at the first peak, at least `base_lr`.
    step_size_up : int, default 2000
        The steps from the base to the peak, >= 1.
    step_size_down : int, optional
        The steps back, >= 1; by default as many.
    mode : {"triangular", "triangular2", "exp_range"}, default "triangular"
        How the peaks change: not at all, by half at each cycle, or by a power of `gamma`.
    gamma : float, default 1.0
        :math:`\gamma` > 0 and <= 1, for ``"exp_range"``.
    momentum : pair of float or None, default (0.8, 0.9)
        The lowest momentum :math:`\mu_{base}`, at the peak, and the highest, as of `one_cycle`. None leaves the
        optimizer's momentum alone.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value.

    Notes
    -----
    PyTorch's ``CyclicLR``; its ``cycle_momentum=False`` is ``momentum=None``.

    References
    ----------
    Smith, arXiv:1506.01186.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> from schuss import schedules
    >>> rate = schedules.cyclic(0.0, 1.0, 2, mode="triangular2")
    >>> [rate(t) for t in range(9)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25, 0.0]
    >>> opt = schuss.SGD(np.ones(3), lr=rate, momentum=0.9)
    """

    base_lr: float
    max_lr: float
    step_size_up: int
    step_size_down: int | None
    mode: str
    gamma: float
    momentum_range: tuple[float, float] | None

    def __init__(
        self,
        base_lr: float,
        max_lr: float,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: Mode = "triangular",
        gamma: float = 1.0,
        momentum: tuple[float, float] | None = (0.8, 0.9),
    ) -> None:
        # Written out because a field cannot have the name of the method `momentum`.
        base = number("base_lr", base_lr)
        self._set_checked(
            base_lr=base,
            max_lr=number("max_lr", max_lr, base),
            step_size_up=whole("step_size_up", step_size_up, 1),
            step_size_down=None if step_size_down is None else whole("step_size_down", step_size_down, 1),
            mode=_MODE("mode", mode),
            gamma=number("gamma", gamma, high=1.0, open_low=True, closed_high=True),
            momentum_range=None if momentum is None else _momenta(momentum),
        )

    def _height(self, step: int) -> float:
        """The height of a step between base and first peak, 0 to 1."""
        up = self.step_size_up
        down = up if self.step_size_down is None else self.step_size_down
        cycle, place = divmod(step, up + down)
        part = place / up if place <= up else (up + down - place) / down
        if self.mode == "triangular2":
            return math.ldexp(part, -min(cycle, 2000))
        return scaled_power(part, self.gamma, step) if self.mode == "exp_range" else part

    def _at(self, step: int) -> float:
        return blend(self.max_lr, self.base_lr, self._height(step))

    def _momentum_between(self, low: float, high: float, step: int) -> float:
        return blend(low, high, self._height(step))


def _momenta(value: Any) -> tuple[float, float]:
    low, high = _PAIR("momentum", value)
    if low > high:
        raise ValueError(f"momentum must be a pair of the lowest and the highest momentum, got {value!r}")
    return low, high
