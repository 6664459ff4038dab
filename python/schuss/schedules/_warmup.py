"""Warm-up: a ramp before a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from schuss._core import scheduling, validate
from schuss._core.scheduling import AnySchedule
from schuss.schedules._annealing import cosine
from schuss.schedules._base import Composed, fraction, inner, whole


@dataclass(frozen=True)
class warmup(Composed):
    r"""A linear ramp up to the first rate of a schedule, then that schedule from its own step 0.

    .. math:: \eta_t = \begin{cases}
       \left( s + (1 - s) \, t / W \right) \eta'_0 & t < W \\
       \eta'_{t - W} & t \ge W \end{cases}

    where :math:`\eta'` is the inner schedule. **The first step has exactly** :math:`s \, \eta'_0`, **which is 0 by
    default**: it changes no parameter, only the state. With ``skip_first=True`` the first step already has a larger
    rate: the ramp is :math:`s + (1 - s)(t + 1)/(W + 1)`. Either way every step of the ramp has a larger rate than the
    one before, and step :math:`W` is the first with the schedule's own rate.

    Parameters
    ----------
    schedule : callable
        The schedule after the ramp, or any function of the step. During the ramp its momentum, if it sets one, is that
        of its step 0.
    steps : int
        The length :math:`W` of the ramp, >= 0.
    start : float, default 0.0
        Where the ramp starts, as a fraction :math:`s` of the schedule's first rate: >= 0 and <= 1.
    skip_first : bool, default False
        Leave out the first value of the ramp.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value.

    Notes
    -----
    PyTorch's ``SequentialLR`` of a ``LinearLR`` and the schedule. The Transformers library's and Optax's warm-ups
    start at 0 like this one.

    References
    ----------
    Goyal et al., arXiv:1706.02677, section 2.2.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.warmup(schedules.step(1.0, 2, gamma=0.5), 4)
    >>> [rate(t) for t in range(8)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.5]
    >>> rate = schedules.warmup(schedules.constant(1.0), 3, skip_first=True)
    >>> [rate(t) for t in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    schedule: AnySchedule
    steps: int
    start: float = 0.0
    skip_first: bool = False

    def __post_init__(self) -> None:
        self._set_checked(
            schedule=inner("schedule", self.schedule),
            steps=whole("steps", self.steps),
            start=fraction("start", self.start),
            skip_first=validate.flag("skip_first", self.skip_first),
        )

    def _at(self, step: int) -> float:
        if step >= self.steps:
            return validate.scheduled_rate("schedule", self.schedule, step - self.steps)
        extra = int(self.skip_first)
        part = (step + extra) / (self.steps + extra)
        return (self.start + (1.0 - self.start) * part) * validate.scheduled_rate("schedule", self.schedule, 0)

    def _momentum_at(self, step: int) -> float | None:
        return scheduling.momentum("schedule", self.schedule, max(step - self.steps, 0))

    @property
    def initial_lr(self) -> float:
        """The inner schedule's base rate."""
        return scheduling.initial_rate("schedule", self.schedule)


def warmup_cosine(
    lr_max: float,
    warmup_steps: int,
    total_steps: int,
    lr_min: float = 0.0,
    start: float = 0.0,
    skip_first: bool = False,
) -> warmup:
    r"""A linear ramp up, then cosine annealing; then the lowest rate is kept.

    .. math:: \eta_t = \begin{cases}
       \left( s + (1 - s) \, t / W \right) \eta_{max} & t < W \\
       \eta_{min} + (\eta_{max} - \eta_{min})
       \frac{1}{2} \left( 1 + \cos \left( \pi \frac{\min(t, N) - W}{N - W} \right) \right) & t \ge W \end{cases}

    Parameters
    ----------
    lr_max : float
        The largest rate :math:`\eta_{max}`, >= 0.
    warmup_steps : int
        The length :math:`W` of the ramp, >= 0.
    total_steps : int
        The step :math:`N` with the lowest rate, more than `warmup_steps`.
    lr_min : float, default 0.0
        The lowest rate :math:`\eta_{min}`, >= 0 and at most `lr_max`.
    start : float, default 0.0
        Where the ramp starts, as a fraction :math:`s` of `lr_max`: >= 0 and <= 1.
    skip_first : bool, default False
        Leave out the first value of the ramp, which is 0 by default.

    Returns
    -------
    warmup
        ``warmup(cosine(lr_max, lr_min, total_steps - warmup_steps), warmup_steps, start, skip_first)``.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value.

    References
    ----------
    Loshchilov and Hutter, arXiv:1608.03983; Goyal et al., arXiv:1706.02677.

    Examples
    --------
    >>> from schuss import schedules
    >>> rate = schedules.warmup_cosine(1.0, 2, 6)
    >>> [round(rate(t), 4) for t in range(8)]
    [0.0, 0.5, 1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """
    ramp = whole("warmup_steps", warmup_steps)
    total = whole("total_steps", total_steps, ramp + 1)
    return warmup(cosine(lr_max, lr_min, total - ramp), ramp, start, skip_first)
