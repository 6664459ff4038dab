"""The only schedule with state: it lowers the rate when a metric stops improving."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from schuss._core import scheduling, validate
from schuss._core.hyperparameters import check_of
from schuss.schedules._base import StartsAtLr, fraction, number, whole

Mode = Literal["min", "max"]
ThresholdMode = Literal["rel", "abs"]
_MODE = check_of(Mode)
_THRESHOLD_MODE = check_of(ThresholdMode)


@dataclass(frozen=True)
class _Progress:
    rate: float
    best: float | None = None
    bad_updates: int = 0
    cooldown_left: int = 0


@dataclass(frozen=True, eq=False)
class reduce_on_plateau(StartsAtLr):
    r"""The rate is multiplied by a factor whenever a metric has stopped improving.

    .. math:: \eta \leftarrow \max(\gamma \, \eta, \eta_{min})

    after more than :math:`P` updates in a row without improvement.

    Pass the metric to :meth:`update`, for example after each validation; the rate is constant in between. This is the
    only schedule with state. The optimizer saves it in ``state_dict()`` and checkpoints; ``load_state_dict`` and
    ``schuss.load`` restore it into the optimizer's schedule. These schedules compare by identity.

    Parameters
    ----------
    lr : float
        The first rate, >= 0.
    mode : {"min", "max"}, default "min"
        Whether a lower or a higher metric is better.
    factor : float, default 0.1
        The factor :math:`\gamma`, > 0 and < 1.
    patience : int, default 10
        The number :math:`P` of updates without improvement that are tolerated, >= 0.
    threshold : float, default 1e-4
        By how much the metric must be better than the best so far to count as an improvement, >= 0.
    threshold_mode : {"rel", "abs"}, default "rel"
        Whether the threshold is relative to the best metric's absolute value, or absolute.
    cooldown : int, default 0
        The number of updates after a reduction that are not counted, >= 0.
    min_lr : float, default 0.0
        The lowest rate :math:`\eta_{min}`, >= 0 and at most `lr`.
    eps : float, default 1e-8
        A reduction by no more than this is skipped, >= 0.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value.

    Notes
    -----
    PyTorch's ``ReduceLROnPlateau``, except for negative metrics with a relative threshold: PyTorch multiplies the best
    metric by ``1 - threshold`` or ``1 + threshold``, so that a negative metric which is slightly worse counts as an
    improvement; here the threshold is relative to the absolute value. A metric of NaN is no improvement in either.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> from schuss import schedules
    >>> rate = schedules.reduce_on_plateau(1.0, factor=0.5, patience=1)
    >>> opt = schuss.SGD(np.ones(3), lr=rate)
    >>> [rate.update(loss) for loss in (3.0, 2.0, 2.0, 2.0, 1.0)]
    [1.0, 1.0, 1.0, 0.5, 0.5]
    >>> opt.state_dict()["param_groups"][0]["lr"]
    {'schedule': {'rate': 0.5, 'best': 1.0, 'bad_updates': 0, 'cooldown_left': 0}}
    """

    lr: float
    mode: Mode = "min"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: ThresholdMode = "rel"
    cooldown: int = 0
    min_lr: float = 0.0
    eps: float = 1e-8
    progress: _Progress = field(init=False)

    def __post_init__(self) -> None:
        lr = number("lr", self.lr)
        self._set_checked(
            lr=lr,
            mode=_MODE("mode", self.mode),
            factor=number("factor", self.factor, high=1.0, open_low=True),
            patience=whole("patience", self.patience),
            threshold=number("threshold", self.threshold),
            threshold_mode=_THRESHOLD_MODE("threshold_mode", self.threshold_mode),
            cooldown=whole("cooldown", self.cooldown),
            min_lr=fraction("min_lr", self.min_lr, lr),
            eps=number("eps", self.eps),
            progress=_Progress(lr),
        )

    def _at(self, step: int) -> float:
        return self.progress.rate

    def update(self, metric: float) -> float:
        """Records a metric, and lowers the rate if the patience has run out.

        Parameters
        ----------
        metric : float
            The latest value, of a validation loss for example.

        Returns
        -------
        float
            The rate from now on.

        Raises
        ------
        TypeError
            `metric` is not a number.
        """
        value = validate.plain(metric)
        if value is None:
            raise TypeError(f"metric must be a number, got {metric!r}")
        rate, best, bad, cooldown = dataclasses.astuple(self.progress)
        if self._improves(value, best):
            best, bad = value, 0
        else:
            bad += 1
        if cooldown > 0:
            cooldown, bad = cooldown - 1, 0
        if bad > self.patience:
            lower = max(rate * self.factor, self.min_lr)
            rate = lower if rate - lower > self.eps else rate
            cooldown, bad = self.cooldown, 0
        self._set_checked(progress=_Progress(rate, best, bad, cooldown))
        return self.progress.rate

    def _improves(self, value: float, best: float | None) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        if best is None:
            return sign * value < math.inf
        margin = self.threshold * (abs(best) if self.threshold_mode == "rel" else 1.0)
        return sign * value < sign * best - margin

    def state_dict(self) -> dict[str, Any]:
        """The current rate and the progress of the metric, JSON-serializable.

        Returns
        -------
        dict
            ``rate``, ``best`` (None before the first update), ``bad_updates`` and ``cooldown_left``.
        """
        return dataclasses.asdict(self.progress)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the result of :meth:`state_dict`; on an error nothing has changed.

        Parameters
        ----------
        state : dict
            From :meth:`state_dict`.

        Raises
        ------
        TypeError, ValueError
            It is not such a state.
        """
        self._loaded(state).make()

    def _loaded(self, state: Any) -> scheduling.Loading:
        """What changes when a state is loaded, which is checked."""
        names = [entry.name for entry in dataclasses.fields(_Progress)]
        if not isinstance(state, Mapping) or set(state) != set(names):
            raise ValueError(f"the state of a reduce_on_plateau must be a dict with {', '.join(names)}, got {state!r}")
        best = state["best"]
        progress = _Progress(
            rate=number("rate", state["rate"]),
            best=None if best is None else validate.real("best", best, finite=False),
            bad_updates=whole("bad_updates", state["bad_updates"]),
            cooldown_left=whole("cooldown_left", state["cooldown_left"]),
        )
        loading = scheduling.Loading()
        loading.changes.append((self, "progress", progress))
        return loading
