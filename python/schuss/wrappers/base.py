"""The base of wrappers: optimizers that wrap another one and are used in its place, such as slow weights.

Groups, gradients, counters, options and state are delegated to the wrapped optimizer. A wrapper adds work after each
step, and its own state arrays and settings; it knows no optimizer class.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from schuss import _schuss
from schuss._arrays import trees
from schuss._arrays.formats import State
from schuss._backends import tools
from schuss._backends.host import HOST
from schuss._backends.protocol import Change, Counters
from schuss._core import state as _state
from schuss._core.given_groups import check_group
from schuss._core.group import ParamGroup
from schuss._core.optimizer import Optimizer
from schuss._core.validate import Check

#: The wrapped optimizer's lists with an entry for each parameter, in the order of `_new_extra`.
_PER_PARAMETER = ("_params", "_states", "_rule_states")


def _wrapped(name: str) -> Any:
    """An attribute delegated to the wrapped optimizer."""
    return property(lambda self: getattr(self.optimizer, name))


class Wrapper(Optimizer):
    """An optimizer that wraps another one.

    A subclass has a constructor that ends in ``self._wrap(optimizer, ...)``. Its ``_after`` says what happens after
    each step taken; ``_new_extra`` and ``_extra_names`` define the state arrays that it adds for a parameter.
    """

    #: The checks of the wrapper's own settings; each value is in an attribute ``_<name>``.
    _own_settings: ClassVar[Mapping[str, Check]] = {}
    #: The wrapper's name in checkpoints, before the wrapped optimizer's; subclasses of a wrapper keep it.
    _wrapper: ClassVar[str] = "Wrapper"
    #: What `_showing` sets the parameters to, for messages.
    _shown: ClassVar[str] = "other values"
    #: What ends that, for messages.
    _leave: ClassVar[str] = "leave evaluate()"
    #: What to do instead of wrapping an optimizer whose state has the same names, for messages.
    _instead: ClassVar[str] = "use one of them"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("Wrapper is what stands around an optimizer; make one of its subclasses")

    def _wrap(self, optimizer: Optimizer, **settings: Any) -> None:
        """Wraps an optimizer; `settings` has a value for each of the wrapper's own settings."""
        self._refuse_made()
        if not isinstance(optimizer, Optimizer):
            advice = getattr(optimizer, "_refusal", "")
            raise TypeError(f"{type(self).__name__} wraps an optimizer, got {trees.kind(optimizer)}{advice}")
        if not optimizer._wrappable:
            raise TypeError(f"{type(self).__name__} cannot wrap {type(optimizer).__name__}, whose step is many updates")
        optimizer._check_idle()  # what the wrapper adds starts from the parameters, which may be other values
        self._optimizer = optimizer
        #: By tool, the lists that its job was made for, and the job.
        self._jobs: dict[str, tuple[Any, ...]] = {}
        for name, value in settings.items():
            setattr(self, f"_{name}", self._own_settings[name](name, value))
        self._check_wrapped()
        self._refuse_same_names()
        #: The arrays that the wrapper adds to the states of each parameter.
        self._extra = [
            self._new_extra(*arrays)
            for arrays in zip(optimizer._params, self._stepped._states, optimizer._rule_states, strict=True)
        ]
        stepped = self._stepped
        wrappers = [*stepped._wrapped_by, weakref.ref(self)]
        self._backend.changes([(stepped, "_wrapped_by", wrappers), *self._reserving(self._extra)]).make()

    def _refuse_same_names(self) -> None:
        """Raises if the wrapped optimizer's settings or states have names of this wrapper's: each is saved once."""
        inner = self._optimizer
        same = [name for name in self._own_settings if name in inner._settings]
        same += [name for name in self._extra_names(0) if name in inner._state_names(0)]
        if same:
            raise TypeError(
                f"{type(self).__name__} cannot wrap {inner._name()}: both have {same[0]!r} in their state, "
                f"which has each name once; {self._instead}"
            )

    def _job(self, tool: str, values: Sequence[float], arrays: Callable[[], tuple[list[Any], list[list[Any]]]]) -> Any:
        """A tool's `sync` over the arrays and the states that `arrays` returns, of the optimizer and the wrapper's own.

        On the host it is made once, and again when these lists are others.
        """
        stepped = self._stepped
        given = (stepped._params, stepped._states, self._extra)
        params, states, extra, job = self._jobs.get(tool, (None, None, None, None))
        if params is given[0] and states is given[1] and extra is given[2]:
            job.set(tools.packed(values))
            return job
        over, states = arrays()
        job = self._backend.job(tool, over, values, program="sync", states=states)
        if isinstance(job, _schuss.Job):
            self._jobs[tool] = (*given, job)
        return job

    def _reserving(self, extra: Sequence[Sequence[Any]]) -> list[Change]:
        """What changes so that gradients share no memory with these arrays."""
        arrays = [array for own in extra for array in own if isinstance(array, np.ndarray)]
        return [(self._stepped, "_written", None), (self._stepped, "_reserved", arrays)]

    # For subclasses to override.

    def _check_wrapped(self) -> None:
        """Raises if the settings do not fit the wrapped optimizer."""

    def _new_extra(
        self, param: np.ndarray, states: Sequence[np.ndarray], rule_states: Sequence[State]
    ) -> list[np.ndarray]:
        """The arrays to add to the states of a parameter, given those of the innermost optimizer."""
        return []

    def _extra_names(self, i: int) -> list[str]:
        """The names of these arrays."""
        return []

    def _after(self, steps: int) -> _schuss.Changes | None:
        """What changes after the `steps`-th step, in the same native call; None if nothing does."""

    # Stepping.

    def step(self, *args: Any, **kwargs: Any) -> bool:
        """Takes a step of the wrapped optimizer, then does the wrapper's own work.

        Arguments and errors are those of the wrapped optimizer's ``step``.

        Returns
        -------
        bool
            Whether the step was taken.
        """
        self._refuse_shown()
        with _schuss.ExclusiveLock(self):
            self._refuse_added()
            try:
                changes = self._after(self._optimizer.step_count + 1)
            except TypeError:  # a parameter that was resized or made read-only does not fit
                self._backend.refuse_changed(self._stepped)
                raise
            if changes is None and not self._awaited:
                return self._optimizer.step(*args, **kwargs)
            with _schuss.AfterStep(self._optimizer, changes, self):
                return self._optimizer.step(*args, **kwargs)

    def _showing(self, values: Sequence[np.ndarray]) -> contextlib.AbstractContextManager[None]:
        """A context in which the parameters are `values`."""
        self._refuse_shown()
        self._refuse_added()
        self._backend.refuse_changed(self._stepped)
        job = self._backend.job("copy", self._params, grads=values)
        self._stepped._shown_now = (self._shown, self._leave)
        return self._backend.other_values(self._stepped, self._wrappers(), job)

    def _wrappers(self) -> list[Optimizer]:
        """The wrapper itself and those that it wraps."""
        wrappers: list[Optimizer] = [self]
        while isinstance(wrappers[-1], Wrapper) and wrappers[-1].optimizer is not self._stepped:
            wrappers.append(wrappers[-1].optimizer)
        return wrappers

    def _refuse_shown(self) -> None:
        if self._read_only:
            shown, leave = self._stepped._shown_now
            raise RuntimeError(f"the parameters are at {shown}; {leave} first")

    def _refuse_evaluating(self) -> None:
        if getattr(self._stepped, "mode", "train") != "train":
            raise RuntimeError(_schuss.EVALUATING)

    def _refuse_added(self) -> None:
        if len(self._extra) != len(self._optimizer._params):
            named = any(self._extra) and self._shown != Wrapper._shown
            lacks = f", and has no {self._shown.removeprefix('the ')}" if named else ""
            raise ValueError(
                f"a group was added to the wrapped optimizer itself{lacks}; make a new {type(self).__name__}, and add "
                "groups with its own add_param_group"
            )

    # Delegated to the wrapped optimizer.

    @property
    def optimizer(self) -> Optimizer:
        """The wrapped optimizer."""
        return self._optimizer

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The wrapped optimizer's groups."""
        return self._optimizer.param_groups

    @property
    def step_count(self) -> int:
        """Steps taken; see `Optimizer.step_count`."""
        return self._optimizer.step_count

    @step_count.setter
    def step_count(self, value: int) -> None:
        self._refuse_shown()
        self._optimizer.step_count = value

    @property
    def skipped_steps(self) -> int:
        """Steps not taken because a gradient was not finite."""
        return self._optimizer.skipped_steps

    def _norms_of_step(self) -> tuple[float | None, float | None]:
        return self._optimizer._norms_of_step()

    @property
    def grads(self) -> Any:
        """The wrapped optimizer's gradient buffers."""
        return self._optimizer.grads

    @grads.setter
    def grads(self, value: Any) -> None:
        self._optimizer.grads = value

    def zero_grad(self) -> None:
        """Sets the gradient buffers to zero."""
        self._optimizer.zero_grad()

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Adds a group to the wrapped optimizer; the wrapper's own state for it starts from the current values."""
        self._refuse_shown()
        self._refuse_added()
        check_group(group)
        with self._exclusive():
            self._backend.changes(self._group_added(group)).make()

    def _group_added(self, group: Mapping[str, Any], others: Sequence[Any] = ()) -> list[Change]:
        others = [*others, *(array for extra in self._extra for array in extra)]
        changes = self._optimizer._group_added(group, others)
        made = {name: value[len(self._extra) :] for _, name, value in changes if name in _PER_PARAMETER}
        new = [self._new_extra(*arrays) for arrays in zip(*(made[name] for name in _PER_PARAMETER), strict=True)]
        return [*self._reserving(new), (self, "_extra", [*self._extra, *new]), *changes]

    if not TYPE_CHECKING:  # type checkers see the base class's attributes
        _params = _wrapped("_params")
        _rule_states = _wrapped("_rule_states")
        _shared = _wrapped("_shared")
        _templates = _wrapped("_templates")
        _suffixes = _wrapped("_suffixes")
        _grouped = _wrapped("_grouped")
        _groups = _wrapped("_groups")
        _defaults = _wrapped("_defaults")
        _state_format = _wrapped("_state_format")
        _backend = _wrapped("_backend")

        @property
        def _changes(self) -> int:
            return super()._changes + self._optimizer._changes

        @property
        def _settings(self) -> tuple[str, ...]:
            return (*self._optimizer._settings, *self._own_settings)

        @property
        def _states(self) -> list[list[np.ndarray]]:
            self._refuse_added()
            return [[*own, *extra] for own, extra in zip(self._optimizer._states, self._extra, strict=True)]

    def _state_names(self, i: int) -> list[str]:
        return [*self._optimizer._state_names(i), *self._extra_names(i)]

    def _name(self) -> str:
        return self._label or f"{self._wrapper}({self._optimizer._name()})"

    def _checked(self, name: str, value: Any, place: str | None = None) -> Any:
        if name in self._own_settings:
            return self._own_settings[name](place or name, value)
        return self._optimizer._checked(name, value, place)

    def _option(self, name: str) -> Any:
        return getattr(self, f"_{name}") if name in self._own_settings else self._optimizer._option(name)

    def _change(self, name: str, value: Any) -> None:
        self._check_idle()
        super()._change(name, value)

    def _changed(self, checked: Mapping[str, Any]) -> list[Change]:
        own: list[Change] = [(self, f"_{name}", value) for name, value in checked.items() if name in self._own_settings]
        rest = {name: value for name, value in checked.items() if name not in self._own_settings}
        return [*own, *self._optimizer._changed(rest)]

    def _check_idle(self) -> None:
        self._refuse_shown()
        HOST.check_idle(self)
        self._optimizer._check_idle()

    def _exclusive(self, *others: _schuss.Core) -> contextlib.AbstractContextManager[None]:
        self._refuse_shown()
        return self._optimizer._exclusive(self, *others)

    def _read_counters(self) -> Counters:
        return self._optimizer._read_counters()

    def _counted(self, counters: Counters) -> list[Change]:
        return self._optimizer._counted(counters)

    def _state_format_changed(self, kept: Any) -> list[Change]:
        return self._optimizer._state_format_changed(kept)

    @property
    def _takes_gradients(self) -> bool:
        return self._optimizer._takes_gradients

    @property
    def _stepped(self) -> Optimizer:
        return self._optimizer._stepped

    def __reduce__(self) -> tuple[Any, ...]:
        end = self._copied()
        settings = {name: self._option(name) for name in self._own_settings}
        return _rebuild, (type(self), self._optimizer, settings), (_state.state_dict(self), end)

    def _copied(self) -> _state.End:
        self._refuse_shown()
        return _state.End(self)

    def __setstate__(self, state: Any) -> None:
        kept, end = state
        end.check(self._stepped._origin)
        self.load_state_dict(kept)

    def __repr__(self) -> str:
        values = {name: self._option(name) for name in self._own_settings}
        settings = ", ".join(f"{n}={v:g}" if isinstance(v, float) else f"{n}={v!r}" for n, v in values.items())
        return f"{type(self).__name__}({settings}) around {self._optimizer!r}"


def _rebuild(kind: type[Wrapper], optimizer: Optimizer, settings: Mapping[str, Any]) -> Wrapper:
    """Creates the wrapper of a copy around the copied optimizer; its state is loaded afterwards."""
    result = kind.__new__(kind)
    result._wrap(optimizer, **settings)
    return result
