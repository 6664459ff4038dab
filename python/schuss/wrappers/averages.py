"""Averages of an optimizer's parameters: exponential, equal-weighted, polynomial. They know no optimizer class."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, trees
from schuss._arrays.formats import State
from schuss._backends.protocol import Change
from schuss._core import validate
from schuss._core.hyperparameters import ClosedFraction, Fraction, Range, check_of
from schuss._core.optimizer import Optimizer
from schuss._core.settings import setting
from schuss.wrappers.base import Wrapper

_START = check_of(Annotated[int, Range(low=0.0)])


class _Average(Wrapper):
    """The base of averages: one array for each parameter, which an update moves towards it by a weight.

    A subclass says what the weight of an update is.
    """

    _own_settings = {"updates": validate.steps}
    _shown = "the average"
    _leave = "leave swap()"
    _instead = "make both around the optimizer itself, step one, and call update() of the other after each step"

    _updates: int

    @property
    def updates(self) -> int:
        """Updates of the average so far."""
        return self._updates

    @property
    def average(self) -> Any:
        """The averages as read-only views, in the structure of the parameters; without updates, the first values."""
        self._refuse_added()
        views = [checks.shown(own[0]) for own in self._extra]
        for view in views:
            view.flags.writeable = False
        return trees.build(self._root(), views.__getitem__)

    def update(self) -> None:
        """Updates the average with the current parameters, for an optimizer that is stepped by itself.

        ``step`` of the average does this after the optimizer's step.

        Raises
        ------
        ValueError
            A parameter was replaced, resized, re-pointed or made read-only.
        RuntimeError
            Another thread is stepping, saving or loading the optimizer, or this is inside :meth:`swap`.
        """
        with self._exclusive():
            self._refuse_added()
            self._backend.refuse_changed(self._stepped)
            self._backend.refuse_replaced(self._stepped)
            self._updated().make()

    def swap(self) -> contextlib.AbstractContextManager[None]:
        """Inside this context the parameters are their averages; afterwards they are themselves again, exactly.

        Meanwhile the optimizer can be read, also by ``state_dict``, but takes no step, and `schuss.save` refuses it. An
        exception anywhere in the block, or while it is entered or left, restores the parameters too.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> w = np.array([1.0])
        >>> opt = schuss.SWA(schuss.SGD(w, lr=0.5))
        >>> for _ in range(2):
        ...     taken = opt.step(np.array([1.0]))
        >>> with opt.swap():
        ...     print(w)
        [0.25]
        >>> w
        array([0.])
        """
        return self._showing([own[0] for own in self._extra])

    def _weight(self, updates: int) -> float:
        """The weight of the parameters in an update, after this many others."""
        raise NotImplementedError

    def _is_due(self, steps: int) -> bool:
        """Whether an update follows the `steps`-th step."""
        return True

    def _after(self, steps: int) -> _schuss.Changes | None:
        return self._updated() if self._is_due(steps) else None

    def _updated(self) -> _schuss.Changes:
        return self._backend.changes(self._counted_up(), jobs=[self._averaging()])

    def _counted_up(self) -> list[Change]:
        return [(self, "_updates", self._updates + 1)]

    def _averaging(self) -> Any:
        """The job that updates the averages."""
        return self._job("average", [self._weight(self._updates)], lambda: (self._averaged(), self._extra))

    def _averaged(self) -> list[np.ndarray]:
        """The arrays to average: the parameters, or their master copies."""
        optimizer = self._optimizer
        named = (dict(zip(optimizer._state_names(i), own, strict=True)) for i, own in enumerate(optimizer._states))
        return [own.get("master", param) for own, param in zip(named, optimizer._params, strict=True)]

    def _check_wrapped(self) -> None:
        if "mode" in self._optimizer._settings:
            raise TypeError(f"{type(self._stepped).__name__} averages its parameters itself; use its eval()")

    def _new_extra(
        self, param: np.ndarray, states: Sequence[np.ndarray], rule_states: Sequence[State]
    ) -> list[np.ndarray]:
        """A copy in the compute dtype: in bfloat16, small updates would be rounded away."""
        return [param.astype(checks.compute_dtype(param.dtype))]

    def _extra_names(self, i: int) -> list[str]:
        return ["average"]


class EMA(_Average):
    r"""An exponential moving average of the parameters, around an optimizer or beside it.

    The first update copies the parameters; every other, with :math:`n` updates before it, is

    .. math:: a \leftarrow \beta_n a + (1 - \beta_n) p

    It is used in the place of the optimizer, which it wraps: an update follows each step, in the same native call.
    Or the optimizer is stepped itself and ``update()`` is called after it. ``swap()`` is a context in which the
    parameters are the average. The averages are part of ``state_dict()`` and of files, as the state ``average``.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer, any of the package but `LBFGS` and the schedule-free ones; all of its parameters are averaged.
    decay : float, default 0.999
        :math:`\beta` in [0, 1).
    warmup : bool, default False
        Use :math:`\beta_n = \min(\beta, (1 + n) / (10 + n))`, so that the average forgets the first steps sooner.
    bias_correction : bool, default False
        Start from zero and divide by :math:`1 - \prod_i \beta_i`, instead of starting with a copy. The array has the
        quotient.
    update_every : int, default 1
        Update after every so many steps.

    Raises
    ------
    TypeError, ValueError
        ``optimizer`` is not an optimizer, averages by itself, is or wraps an average, or a value is out of range.

    Notes
    -----
    An update is part of the step's last pass and moves the average's bytes alone: it finds the parameters in the
    cache. It is a pass of its own after steps with matrix products, steps whose last pass takes rows and columns
    together (`SM3`), steps of several passes that leave out an array, and steps of one pass over packed parameters.
    The average is in 32 bits for parameters of fewer. PyTorch's ``AveragedModel`` with ``get_ema_multi_avg_fn``;
    ``warmup`` is TensorFlow's ``num_updates``.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0])
    >>> opt = schuss.EMA(schuss.SGD(w, lr=0.5), decay=0.75)
    >>> for _ in range(2):
    ...     taken = opt.step(np.array([1.0]))
    >>> w, opt.average
    (array([0.]), array([0.375]))
    """

    _own_settings = {
        "decay": check_of(Fraction),
        "warmup": check_of(bool),
        "bias_correction": check_of(bool),
        "update_every": check_of(int),
        **_Average._own_settings,
        "decayed": check_of(ClosedFraction),
    }
    _wrapper = "EMA"

    # Read in each step: the properties below look a setting up by its name, which takes a microsecond.
    _warmup: bool
    _bias_correction: bool
    _update_every: int
    _decayed: float

    def __init__(
        self,
        optimizer: Optimizer,
        decay: float = 0.999,
        *,
        warmup: bool = False,
        bias_correction: bool = False,
        update_every: int = 1,
    ) -> None:
        self._wrap(
            optimizer,
            decay=decay,
            warmup=warmup,
            bias_correction=bias_correction,
            update_every=update_every,
            updates=0,
            decayed=1.0,
        )

    decay = setting("decay", "The weight of the average in an update, in [0, 1).")
    warmup = setting("warmup", "Whether the decay is smaller at first.")
    bias_correction = setting("bias_correction", "Whether the average starts from zero and is corrected for that.")
    update_every = setting("update_every", "Steps from one update to the next.")

    def _weight(self, updates: int) -> float:
        if updates == 0:
            return 1.0
        share = 1.0 - self._decay_after(updates)
        return share / (1.0 - self._decayed_after(updates)) if self._bias_correction else share

    def _updated(self) -> _schuss.Changes:
        decayed = self._decayed_after(self._updates)
        return self._backend.changes([(self, "_decayed", decayed), *self._counted_up()], jobs=[self._averaging()])

    def _decay_after(self, updates: int) -> float:
        """The decay of an update after so many others."""
        decay: float = self.decay
        return min(decay, (1.0 + updates) / (10.0 + updates)) if self._warmup else decay

    def _decayed_after(self, updates: int) -> float:
        """The product of the decays of all updates so far and of the next one, which has this many before it."""
        return self._decayed * self._decay_after(updates)

    def _changed(self, checked: Mapping[str, Any]) -> list[Change]:
        changes = super()._changed(checked)
        if "updates" in checked and "decayed" not in checked:  # a state that an older version saved
            updates, decay = checked["updates"], checked.get("decay", self.decay)
            rising = 0
            if checked.get("warmup", self.warmup):
                rising = min(updates, max(0, math.ceil((10.0 * decay - 1.0) / (1.0 - decay))))
            # More than 10,000 factors would no longer change 1 - decayed.
            first = math.prod((1.0 + n) / (10.0 + n) for n in range(min(rising, 10_000)))
            changes.append((self, "_decayed", first * decay ** (updates - rising)))
        return changes

    def _is_due(self, steps: int) -> bool:
        return not steps % self._update_every


class SWA(_Average):
    r"""Stochastic weight averaging: the mean of the parameters after some steps, around an optimizer or beside it.

    With :math:`n` updates before it, an update is

    .. math:: a \leftarrow a + \frac{p - a}{n + 1}

    Updates follow step ``start + update_every``, ``start + 2 * update_every``, and so on. It is used like `EMA`, with
    ``update()`` and ``swap()``; the defaults are Polyak's average. `schuss.schedules.swalr` is a schedule for it.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer, any of the package but `LBFGS` and the schedule-free ones.
    start : int, default 0
        Steps without updates, before the first.
    update_every : int, default 1
        Update after every so many steps.

    Raises
    ------
    TypeError, ValueError
        ``optimizer`` is not an optimizer, averages by itself, is or wraps an average, or a value is out of range.

    References
    ----------
    Izmailov et al., "Averaging weights leads to wider optima and better generalization", arXiv:1803.05407.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([4.0])
    >>> opt = schuss.SWA(schuss.SGD(w, lr=1.0), start=1)
    >>> for _ in range(3):
    ...     taken = opt.step(np.array([1.0]))
    >>> w, opt.average
    (array([1.]), array([1.5]))
    """

    _own_settings = {"start": _START, "update_every": check_of(int), **_Average._own_settings}
    _wrapper = "SWA"

    _start: int
    _update_every: int

    def __init__(self, optimizer: Optimizer, start: int = 0, update_every: int = 1) -> None:
        self._wrap(optimizer, start=start, update_every=update_every, updates=0)

    start = setting("start", "Steps before the first update.")
    update_every = setting("update_every", "Steps from one update to the next.")

    def _weight(self, updates: int) -> float:
        return 1.0 / (updates + 1)

    def _is_due(self, steps: int) -> bool:
        return steps > self._start and not (steps - self._start) % self._update_every


class Polyak(_Average):
    r"""Polyak's average of the parameters after all steps, or one whose weights grow: polynomial-decay averaging.

    With :math:`t` updates, the present one included, an update is

    .. math:: a \leftarrow a + \frac{1 + \gamma}{t + \gamma} (p - a)

    :math:`\gamma = 0` is the mean of all iterates; above 0 later ones weigh more, as :math:`t^\gamma` asymptotically.
    It is used like `EMA`, with ``update()`` and ``swap()``.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer, any of the package but `LBFGS` and the schedule-free ones.
    gamma : float, default 0.0
        :math:`\gamma` >= 0; 8 is the value of DoG's authors.

    Raises
    ------
    TypeError, ValueError
        ``optimizer`` is not an optimizer, averages by itself, is or wraps an average, or a value is out of range.

    References
    ----------
    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992. Shamir and Zhang,
    arXiv:1212.1824. Ivgi, Hinder and Carmon (DoG), arXiv:2302.12022.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([3.0])
    >>> opt = schuss.Polyak(schuss.SGD(w, lr=1.0))
    >>> for _ in range(3):
    ...     taken = opt.step(np.array([1.0]))
    >>> opt.average
    array([1.])
    """

    _own_settings = {"gamma": check_of(float), **_Average._own_settings}
    _wrapper = "Polyak"

    _gamma: float

    def __init__(self, optimizer: Optimizer, gamma: float = 0.0) -> None:
        self._wrap(optimizer, gamma=gamma, updates=0)

    gamma = setting("gamma", "How much more later iterates weigh, >= 0.")

    def _weight(self, updates: int) -> float:
        return (1.0 + self._gamma) / (updates + 1 + self._gamma)
