"""The schedule for averaging weights: to a constant rate, once another schedule has done its part."""

from __future__ import annotations

from dataclasses import dataclass

from schuss._core import scheduling, validate
from schuss._core.scheduling import AnySchedule
from schuss.schedules._annealing import half_cosine
from schuss.schedules._base import Composed, blend, inner, number, whole
from schuss.schedules._cycle import ANNEAL, Anneal


@dataclass(frozen=True)
class swalr(Composed):
    r"""Another schedule up to a step, then from its rate there to the constant rate of stochastic weight averaging.

    From step :math:`S` on, with :math:`\alpha = \min(1, (t - S) / E)`,

    .. math:: \eta_t = \eta_{SWA} + (\eta'_S - \eta_{SWA}) \frac{1 + \cos(\pi \alpha)}{2}

    or :math:`1 - \alpha` in the place of the fraction.

    Parameters
    ----------
    schedule : callable
        The schedule :math:`\eta'` before, any function of the step.
    swa_lr : float
        The constant rate :math:`\eta_{SWA}`, >= 0.
    start : int, default 0
        The step :math:`S`, >= 0, which still has the other schedule's rate, unless ``anneal_steps`` is 0.
    anneal_steps : int, default 10
        The steps :math:`E` until the rate is constant, >= 0; with 0 it is from step :math:`S` on.
    anneal : {"cos", "linear"}, default "cos"
        The way to it.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value.

    Notes
    -----
    PyTorch's ``SWALR``, which counts its own calls; there ``anneal_steps`` and ``anneal`` are ``anneal_epochs`` and
    ``anneal_strategy``.

    References
    ----------
    Izmailov et al., arXiv:1803.05407.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.swalr(schedules.constant(1.0), 0.5, start=2, anneal_steps=2)
    >>> [round(rate(t), 4) for t in range(6)]
    [1.0, 1.0, 1.0, 0.75, 0.5, 0.5]
    """

    schedule: AnySchedule
    swa_lr: float
    start: int = 0
    anneal_steps: int = 10
    anneal: Anneal = "cos"

    def __post_init__(self) -> None:
        self._set_checked(
            schedule=inner("schedule", self.schedule),
            swa_lr=number("swa_lr", self.swa_lr),
            start=whole("start", self.start),
            anneal_steps=whole("anneal_steps", self.anneal_steps),
            anneal=ANNEAL("anneal", self.anneal),
        )

    def _at(self, step: int) -> float:
        passed = step - self.start
        if passed >= self.anneal_steps:
            return self.swa_lr
        rate = validate.scheduled_rate("schedule", self.schedule, min(step, self.start))
        if passed <= 0:
            return rate
        part = passed / self.anneal_steps
        return blend(rate, self.swa_lr, half_cosine(part) if self.anneal == "cos" else 1.0 - part)

    def _momentum_at(self, step: int) -> float | None:
        return scheduling.momentum("schedule", self.schedule, min(step, self.start))

    @property
    def initial_lr(self) -> float:
        """The other schedule's base rate, or the constant rate if that is larger."""
        return max(scheduling.initial_rate("schedule", self.schedule), self.swa_lr)
