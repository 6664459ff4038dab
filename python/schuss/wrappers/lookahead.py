"""Lookahead: slow weights behind any optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, cast

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, trees
from schuss._arrays.formats import State
from schuss._backends import tools
from schuss._core import state as _state
from schuss._core.group import ParamGroup
from schuss._core.hyperparameters import Range, check_of
from schuss._core.optimizer import Optimizer

_MOMENTA = ("m", "b")

#: How far the slow weights go.
SlowStep = Annotated[float, Range(open_low=True, high=1.0, closed_high=True)]
Pullback = Literal["none", "reset", "pullback"]
_CHECKS = {"k": check_of(int), "alpha": check_of(SlowStep), "pullback": check_of(Pullback)}


class Lookahead(Optimizer):
    r"""Slow weights that follow an optimizer's fast ones.

    Every k-th step :math:`s \leftarrow s + \alpha (p - s)`, then :math:`p \leftarrow s`.

    It wraps any optimizer of the package and is used in its place: ``step``, ``grads``, ``param_groups``,
    ``state_dict`` and checkpoints are the wrapped optimizer's, with the slow weights as one more state array, ``slow``.

    Parameters
    ----------
    optimizer : Optimizer
        The fast one; from now on step the Lookahead instead. Its parameters' present values start the slow weights.
    k : int, default 5
        Fast steps from one synchronization to the next, >= 1.
    alpha : float, default 0.5
        How far the slow weights go, in (0, 1]. The authors' code has 0.8.
    pullback : {"none", "reset", "pullback"}, default "none"
        At each synchronization keep the fast optimizer's state; start it anew; or pull its momentum (the states ``m``
        and ``b``) back to a slow momentum in the same way as the weights.

    Raises
    ------
    TypeError, ValueError
        It is no optimizer, or a Lookahead itself, or a value is out of range.

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

    _settings = (*Optimizer._settings, "k", "alpha", "pullback")

    def __init__(self, optimizer: Optimizer, k: int = 5, alpha: float = 0.5, pullback: Pullback = "none") -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"Lookahead wraps an optimizer, got {trees.kind(optimizer)}")
        if isinstance(optimizer, Lookahead):
            raise TypeError("Lookahead cannot wrap another Lookahead: give one of them k and alpha to suit")
        self._wrap(optimizer, k, alpha, pullback)

    def _wrap(self, optimizer: Optimizer, k: int, alpha: float, pullback: Pullback) -> None:
        self._fast = optimizer
        self._evaluating = False
        #: The steps taken before one that has not come to its end, or None.
        self._begun: int | None = None
        self._k: int = self._checked("k", k)
        self._alpha: float = self._checked("alpha", alpha)
        self._pullback: Pullback = _CHECKS["pullback"]("pullback", pullback)
        if pullback == "pullback" and not any(map(self._momenta, optimizer._rule_states)):
            raise ValueError(f'pullback="pullback" needs a momentum, and {type(optimizer).__name__} here has none')
        if pullback == "pullback" and optimizer._state_format.dtype == "int8":
            raise ValueError('pullback="pullback" is not for state_dtype="int8"; use "bfloat16"')
        self._slow = [self._copies(i) for i in range(len(optimizer._params))]

    # Settings.

    @property
    def k(self) -> int:
        """Fast steps from one synchronization to the next: every step that this divides ends with one."""
        return self._k

    @k.setter
    def k(self, value: int) -> None:
        self._k = self._checked("k", value)

    @property
    def alpha(self) -> float:
        """How far the slow weights go, in (0, 1]."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        self._alpha = self._checked("alpha", value)

    @property
    def pullback(self) -> Pullback:
        """What becomes of the fast optimizer's state; "pullback" is settled when the optimizer is made."""
        return self._pullback

    @pullback.setter
    def pullback(self, value: Pullback) -> None:
        self._pullback = self._checked("pullback", value)

    def _checked(self, name: str, value: Any, place: str | None = None) -> Any:
        checked = _CHECKS[name](place or name, value) if name in _CHECKS else super()._checked(name, value, place)
        if name == "pullback" and (checked == "pullback") != (self._pullback == "pullback"):
            raise ValueError(
                f"{place or name} cannot change from {self._pullback!r} to {value!r}: that needs other state arrays; "
                "make a new optimizer"
            )
        return checked

    def _option(self, name: str) -> Any:
        return getattr(self, f"_{name}") if name in _CHECKS else self._fast._option(name)

    def _change(self, name: str, value: Any) -> None:
        if name in _CHECKS:
            setattr(self, f"_{name}", self._checked(name, value))
        else:
            self._fast._change(name, value)

    @staticmethod
    def _momenta(states: Sequence[State]) -> list[int]:
        return [k for k, state in enumerate(states) if state.name in _MOMENTA]

    def _pulled(self, i: int) -> list[np.ndarray]:
        """What has slow companions: the parameter, or its master copy, and, with "pullback", its momentum."""
        momenta = self._momenta(self._fast._rule_states[i]) if self._pullback == "pullback" else []
        states = self._fast._states[i]
        return [states[-1] if self._fast._state_format.master else self._fast._params[i], *(states[k] for k in momenta)]

    def _copies(self, i: int) -> list[np.ndarray]:
        """Slow companions, as precise as any state: a small part of the way would be lost in bfloat16."""
        pulled = self._pulled(i)
        return [array.astype(checks.compute_dtype(array.dtype), order=checks.order(array)) for array in pulled]

    # Stepping.

    def step(self, *args: Any, **kwargs: Any) -> bool:
        """Takes a step of the wrapped optimizer, and every k-th time synchronizes.

        Arguments and errors are those of the wrapped optimizer's ``step``.

        Returns
        -------
        bool
            Whether the step was taken.
        """
        self._refuse_evaluating()
        with _schuss.ExclusiveLock(self):
            if self._begun is not None:
                self._finish()
            self._refuse_added()
            self._begun = steps = self._fast.step_count
            taken = self._fast.step(*args, **kwargs)
            if taken and (steps + 1) % self._k == 0:
                self._sync()
            self._begun = None
            return taken

    def sync(self) -> None:
        """Moves the slow weights towards the fast ones, and the fast ones onto them; `step` does it every k-th time."""
        with self._exclusive():
            self._refuse_added()
            self._finish()
            self._sync()

    def _finish(self) -> None:
        """Ends a step that was interrupted when the wrapped optimizer had taken its own."""
        steps = self._fast.step_count
        if self._begun not in (None, steps) and steps % self._k == 0:
            self._sync()
        self._begun = None

    def _sync(self) -> None:
        fast = self._fast
        fast._refuse_changed(fast._changed_param())  # on a GPU there are none to look at
        arrays = [array for i in range(len(self._slow)) for array in self._pulled(i)]
        slow = [[array] for own in self._slow for array in own]
        tools.run("lookahead", arrays, [self._alpha], program="sync", states=slow)
        if fast._state_format.master:
            tools.run("copy", fast._params, grads=[own[-1] for own in fast._states])
        if self._pullback == "reset":
            fast._reset_state()

    @contextlib.contextmanager
    def evaluate(self) -> Iterator[None]:
        """The parameters are the slow weights inside this context, and the fast ones again behind it.

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
        if self._evaluating:
            raise RuntimeError("evaluate() is under way already")
        self._refuse_added()
        with self._fast._exclusive(self, nobody=True), self._fast._saved_params():
            self._evaluating = True
            try:
                with np.errstate(all="ignore"):
                    for param, own in zip(self._fast._params, self._slow, strict=True):
                        param[...] = own[0]
                yield
            finally:
                self._evaluating = False

    # Everything else is the wrapped optimizer's.

    @property
    def optimizer(self) -> Optimizer:
        """The wrapped optimizer."""
        return self._fast

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The wrapped optimizer's groups."""
        return self._fast.param_groups

    @property
    def step_count(self) -> int:
        """Steps taken."""
        return self._fast.step_count

    @property
    def skipped_steps(self) -> int:
        """Steps not taken because a gradient was not finite."""
        return self._fast.skipped_steps

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the last step's gradients, where it was measured."""
        return self._fast.grad_norm

    @property
    def grads(self) -> Any:
        """The wrapped optimizer's gradient buffers."""
        return self._fast.grads

    @grads.setter
    def grads(self, value: Any) -> None:
        self._fast.grads = value

    def zero_grad(self) -> None:
        """Sets the gradient buffers to zero."""
        self._fast.zero_grad()

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Adds a group to the wrapped optimizer; its slow weights start at its parameters' present values."""
        self._refuse_evaluating()
        with _schuss.ExclusiveLock(self):
            known = len(self._slow)
            self._fast.add_param_group(group)
            self._slow += [self._copies(i) for i in range(known, len(self._fast._params))]

    def _name(self) -> str:
        return self._label or f"Lookahead({self._fast._name()})"

    def _check_idle(self) -> None:
        self._refuse_evaluating()
        super()._check_idle()
        self._fast._check_idle()

    def _exclusive(self, *others: _schuss.Core, nobody: bool = False) -> contextlib.AbstractContextManager[None]:
        self._refuse_evaluating()
        return self._fast._exclusive(self, *others, nobody=nobody)

    def _refuse_evaluating(self) -> None:
        if self._evaluating:
            raise RuntimeError("the parameters are at the slow weights; leave evaluate() first")

    def _refuse_added(self) -> None:
        if len(self._slow) != len(self._fast._params):
            raise ValueError(
                "a group was added to the wrapped optimizer itself, and has no slow weights; make a new "
                f"{type(self).__name__}, and add groups with its own add_param_group"
            )

    def _counters(self) -> tuple[int, int, list[int]]:
        return self._fast._counters()

    def _set_counters(self, steps: int, skipped: int, groups: Any) -> None:
        self._begun = None
        self._fast._set_counters(steps, skipped, groups)

    def _set_state_format(self, kept: Any) -> None:
        self._fast._set_state_format(kept)

    def _state_names(self, i: int) -> list[str]:
        own = self._fast._rule_states[i]
        momenta = [own[k].name for k in self._momenta(own)] if self._pullback == "pullback" else []
        return [*self._fast._state_names(i), "slow", *(f"slow_{name}" for name in momenta)]

    def __getattr__(self, name: str) -> Any:
        # What the state and the checkpoint read: arrays, structure, places.
        if name in ("_params", "_shared", "_templates", "_suffixes", "_grouped", "_groups", "_defaults", "_state_format"):
            return getattr(self._fast, name)
        if name == "_states":
            self._refuse_added()
            return [[*own, *slow] for own, slow in zip(self._fast._states, self._slow, strict=True)]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_idle()
        arguments = (type(self), self._fast, self._k, self._alpha, self._pullback)
        return _rebuild, arguments, _state.state_dict(self)

    def __setstate__(self, state: Any) -> None:
        self.load_state_dict(state)

    def __repr__(self) -> str:
        settings = f"k={self._k}, alpha={self._alpha:g}, pullback={self._pullback!r}"
        return f"{type(self).__name__}({settings}) around {self._fast!r}"


def _rebuild(kind: type[Lookahead], optimizer: Optimizer, k: int, alpha: float, pullback: Pullback) -> Lookahead:
    """Makes a copy's wrapper around the copied optimizer; its state follows."""
    result = cast(Lookahead, kind.__new__(kind))
    result._wrap(optimizer, k, alpha, pullback)
    return result
