"""Lookahead: slow weights for any optimizer. It knows no optimizer class."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from schuss import _schuss
from schuss._arrays import checks
from schuss._arrays.formats import State
from schuss._core.hyperparameters import Range, check_of
from schuss._core.optimizer import Optimizer
from schuss._core.settings import setting
from schuss.wrappers.base import Wrapper

_MOMENTA = ("m", "b")

#: The step size of the slow weights.
SlowStep = Annotated[float, Range(open_low=True, high=1.0, closed_high=True)]
Pullback = Literal["none", "reset", "pullback"]


class Lookahead(Wrapper):
    r"""Slow weights that follow an optimizer's fast weights.

    After every k-th step :math:`s \leftarrow s + \alpha (p - s)`, then :math:`p \leftarrow s`.

    It wraps any optimizer of the package but `LBFGS`, the schedule-free ones and `Ranger`, which has a Lookahead, and
    is used in its place: ``step``, ``grads``, ``param_groups``, ``state_dict`` and checkpoints are the wrapped
    optimizer's, with the slow weights as one more state array, ``slow``.

    Parameters
    ----------
    optimizer : Optimizer
        The fast optimizer; from now on step the Lookahead instead. The slow weights start at its parameters' current
        values.
    k : int, default 5
        Fast steps between synchronizations, >= 1.
    alpha : float, default 0.5
        Step size of the slow weights, in (0, 1]. The authors' code has 0.8.
    pullback : {"none", "reset", "pullback"}, default "none"
        At each synchronization keep the fast optimizer's state, reset it, or pull its momentum (the states ``m`` and
        ``b``) back to a slow momentum in the same way as the weights.

    Raises
    ------
    TypeError, ValueError
        ``optimizer`` is not an optimizer, averages by itself, is or wraps a Lookahead, or a value is out of range.

    References
    ----------
    Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", arXiv:1907.08610.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0])
    >>> opt = schuss.Lookahead(schuss.SGD(w, lr=0.1), k=2, alpha=0.5)
    >>> for _ in range(2):
    ...     taken = opt.step(np.array([1.0]))
    >>> w.round(3)
    array([0.9])
    """

    _own_settings = {"k": check_of(int), "alpha": check_of(SlowStep), "pullback": check_of(Pullback)}
    _wrapper = "Lookahead"
    _shown = "the slow weights"

    def __init__(self, optimizer: Optimizer, k: int = 5, alpha: float = 0.5, pullback: Pullback = "none") -> None:
        if isinstance(optimizer, Lookahead):
            raise TypeError("Lookahead cannot wrap another Lookahead: give one of them k and alpha to suit")
        self._k: int  # not in the class: Ranger's constructor would take it
        self._alpha: float
        self._pullback: Pullback
        self._wrap(optimizer, k=k, alpha=alpha, pullback=pullback)

    k = setting("k", "Fast steps between synchronizations: one follows every step whose number is a multiple of k.")
    alpha = setting("alpha", "Step size of the slow weights, in (0, 1].")
    pullback = setting(
        "pullback",
        """What a synchronization does to the fast optimizer's state; "pullback" cannot be switched on or off later.""",
    )

    def _checked(self, name: str, value: Any, place: str | None = None) -> Any:
        checked = super()._checked(name, value, place)
        if name == "pullback" and (checked == "pullback") != (self._pullback == "pullback"):
            raise ValueError(
                f"{place or name} cannot change from {self._pullback!r} to {value!r}: that needs other state arrays; "
                f"make a new optimizer with {name}={value!r}"
            )
        return checked

    def _check_wrapped(self) -> None:
        if "mode" in self._optimizer._settings:
            raise TypeError(f"{type(self._stepped).__name__} averages its parameters itself; use it without Lookahead")
        if self._pullback == "pullback" and not any(map(self._momenta, self._rule_states)):
            name = self._stepped._name()
            raise ValueError(f'pullback="pullback" needs a momentum, and {name} here has none')
        if self._pullback == "pullback" and self._state_format.dtype == "int8":
            raise ValueError('pullback="pullback" is not for state_dtype="int8"; use "bfloat16"')

    @staticmethod
    def _momenta(states: Sequence[State]) -> list[int]:
        return [k for k, state in enumerate(states) if state.name in _MOMENTA]

    def _pulled(
        self, param: np.ndarray, states: Sequence[np.ndarray], rule_states: Sequence[State]
    ) -> list[np.ndarray]:
        """The arrays with slow copies: the parameter or its master copy and, with "pullback", its momentum."""
        momenta = self._momenta(rule_states) if self._pullback == "pullback" else []
        return [states[-1] if self._state_format.keeps_copy(param) else param, *(states[k] for k in momenta)]

    def _new_extra(
        self, param: np.ndarray, states: Sequence[np.ndarray], rule_states: Sequence[State]
    ) -> list[np.ndarray]:
        """Slow copies in the compute dtype: in bfloat16, small updates would be rounded away."""
        pulled = self._pulled(param, states, rule_states)
        return [array.astype(checks.compute_dtype(array.dtype)) for array in pulled]

    def _extra_names(self, i: int) -> list[str]:
        states = self._rule_states[i]
        momenta = self._momenta(states) if self._pullback == "pullback" else []
        return ["slow", *(f"slow_{states[k].name}" for k in momenta)]

    def _after(self, steps: int) -> _schuss.Changes | None:
        return self._synchronization(steps) if steps % self._k == 0 else None

    def sync(self) -> None:
        """Moves the slow weights towards the fast ones, then copies them back; ``step`` does this every k-th time."""
        with self._exclusive():
            self._refuse_added()
            self._backend.refuse_changed(self._stepped)
            self._backend.refuse_replaced(self._stepped)
            self._synchronization(self.step_count).make()

    def _synchronization(self, steps: int) -> _schuss.Changes:
        """The synchronization after so many steps."""
        optimizer, backend = self._stepped, self._backend
        jobs = [self._job("lookahead", [self._alpha], self._pairs)]
        pairs = zip(self._params, optimizer._states, strict=True)
        if copies := [(param, own[-1]) for param, own in pairs if self._state_format.keeps_copy(param)]:
            params, masters = map(list, zip(*copies, strict=True))
            jobs.append(backend.job("copy", params, grads=masters))
        if self._pullback != "reset":
            return backend.changes(jobs=jobs)
        # Of the innermost optimizer alone: what other wrappers add is not its state.
        reset = optimizer._reset(steps, optimizer.skipped_steps)
        return backend.changes(reset["attributes"], jobs=[*jobs, *reset["jobs"]], fills=reset["fills"])

    def _pairs(self) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
        """The arrays with slow copies, and these."""
        optimizer = self._stepped
        each = zip(optimizer._params, optimizer._states, optimizer._rule_states, strict=True)
        arrays = [array for own in each for array in self._pulled(*own)]
        return arrays, [[array] for own in self._extra for array in own]

    def evaluate(self) -> contextlib.AbstractContextManager[None]:
        """Inside this context the parameters are the slow weights; afterwards they are the fast ones again.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> w = np.array([1.0])
        >>> opt = schuss.Lookahead(schuss.SGD(w, lr=0.25))
        >>> opt.step(np.array([1.0]))
        True
        >>> with opt.evaluate():
        ...     print(w)
        [1.]
        >>> w
        array([0.75])
        """
        return self._showing([own[0] for own in self._extra])
