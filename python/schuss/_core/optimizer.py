"""The base class of all optimizers: structures, groups, state, gradients.

It knows arrays and hyperparameters, but no rule: a subclass adds its hyperparameters and says which rule they select.
The step itself is in the extension module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, formats, trees
from schuss._backends.host import HOST
from schuss._backends.protocol import Backend
from schuss._core import documentation, options
from schuss._core import state as _state
from schuss._core.callbacks import Callbacks
from schuss._core.group import ParamGroup, is_group, without_params
from schuss._core.kind import Kind
from schuss._core.rules import RULES


def _setting(name: str, doc: str) -> Any:
    """A property for an option that can be changed later; setting it checks the value."""
    return property(lambda self: self._option(name), lambda self, value: self._change(name, value), doc=doc)


class Optimizer(Callbacks, Kind):
    """The base class of all optimizers; use one of its subclasses.

    A subclass declares its hyperparameters: annotated class attributes, with their defaults, are the parameters of its
    constructor. It overrides ``_rule`` if its rule does not have the class's name in lower case, and ``_rule_values``
    if the rule's hyperparameters have other names.
    """

    def _name(self) -> str:
        return self._label or type(self).__name__

    # Construction.

    @classmethod
    def _documented(cls, doc: str) -> str:
        defaults = {field.name: field.default for field in cls._fields.values()}
        return documentation.completed(doc, cls._fields, cls._takes_int8(defaults))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("Optimizer is what all optimizers have in common; make one of those in schuss.OPTIMIZERS")

    def _setup(self, params: Any, hypers: dict[str, Any], whole: dict[str, Any]) -> None:
        if hasattr(self, "_defaults"):
            raise TypeError(f"this {self._name()} is made already; make a new one instead of calling __init__")
        self._backend: Backend = HOST
        if checks.any_on_gpu(params):
            self._use_cuda()
        self._max_grad_norm: float | None = self._checked("max_grad_norm", whole["max_grad_norm"])
        self._nonfinite: str = self._checked("nonfinite", whole["nonfinite"])
        self._configure_step(self._max_grad_norm, self._nonfinite)
        self._set_state_format(options.state_format(whole))
        for name, value in hypers.items():  # also those that every group overrides
            self._fields[name].check(name, value)
        self._defaults = hypers
        self._groups: list[ParamGroup] = []
        self._params: list[np.ndarray] = []
        self._states: list[list[np.ndarray]] = []
        self._rule_states: list[tuple[formats.State, ...]] = []
        #: The states that all arrays share: float64 scalars by name, and the array that holds them.
        self._shared: dict[str, np.ndarray] = {}
        self._shared_values: np.ndarray | None = None
        self._templates: list[Any] = []
        self._suffixes: list[tuple[int, str]] = []
        self._grads: Any = None
        self._written: list[tuple[int, int]] | None = None
        self._grouped = isinstance(params, (list, tuple)) and any(is_group(entry) for entry in params)
        if not self._grouped:
            if is_group(params) and any(name in hypers for name in params):
                raise TypeError("params looks like one group of parameters; groups come in a list: [{'params': ...}]")
            self._extend([(params, {})])
            return
        for i, entry in enumerate(params):
            if not is_group(entry):
                raise TypeError(f"params[{i}] must be a dict with a 'params' key, like the other groups")
        self._extend([(entry["params"], without_params(entry)) for entry in params])

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The groups of parameters, in order; ``param_groups[0]["lr"] = ...`` sets a hyperparameter."""
        return tuple(self._groups)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Adds a group.

        From then on gradients are a list with one structure per group. The group's bias corrections start at its own
        first step; a learning-rate schedule is called with the optimizer's step count.

        Parameters
        ----------
        group : dict
            ``{"params": <structure of arrays>, "lr": ..., ...}``; missing hyperparameters take the constructor's
            values.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> opt = schuss.SGD([np.ones(3)], lr=0.1)
        >>> opt.add_param_group({"params": [np.ones(2)], "lr": 0.01})
        >>> opt.step([[np.ones(3)], [np.ones(2)]])
        True
        """
        if not is_group(group):
            got = "one without" if isinstance(group, Mapping) else trees.kind(group)
            raise TypeError(f"a group is a dict with a 'params' key, got {got}")
        with self._exclusive():
            grads, was_grouped = self._grads, self._grouped
            self._grouped = True
            try:
                self._extend([(group["params"], without_params(group))])
            except BaseException:
                self._grouped = was_grouped
                raise
            if grads is not None:
                new = trees.build(self._templates[-1], self._new_gradient)
                self._grads = [*grads, new] if was_grouped else [grads, new]

    def _extend(self, additions: list[tuple[Any, dict[str, Any]]]) -> None:
        """Adds groups; on an error nothing has changed."""
        suffixes, params, templates = list(self._suffixes), list(self._params), []
        groups: list[ParamGroup] = []
        for structure, given in additions:
            index = len(self._groups) + len(groups)
            where = f"param_groups[{index}]['params']" if self._grouped else "params"
            unknown = [name for name in given if name not in self._defaults]
            if unknown:
                if unknown[0] in self._fields and self._fields[unknown[0]].whole:
                    raise TypeError(f"param_groups[{index}] has {unknown[0]!r}, which is for the optimizer as a whole")
                known = ", ".join(self._defaults)
                raise TypeError(f"param_groups[{index}] has unknown {unknown[0]!r}; {self._name()} takes {known}")
            template, leaves = trees.flatten(structure, where, len(params))
            if not leaves:
                raise ValueError(f"{where} is empty; an optimizer needs at least one array")
            arrays = [self._backend.adapt(where + suffix, array) for suffix, array in leaves]
            suffixes += [(index, suffix) for suffix, _ in leaves]
            params += arrays
            prefix = f"param_groups[{index}]: " if self._grouped else ""
            group = ParamGroup(type(self), arrays, {**self._defaults, **given}, prefix)
            group.shown = tuple(params[i] for i, _, _ in trees.leaves(template, template, where, where))
            groups.append(group)
            templates.append(template)
        first = len(self._params)
        named = [(self._place("params", *at), array) for at, array in zip(suffixes, params, strict=True)]
        self._backend.check_together(named)
        checks.check_apart(named)
        formats.check_params(self._state_format, named[first:])
        for group in groups:
            self._check_state_format(group)
        states = []
        for group in groups:
            states += self._backend.zeros(group.arrays, group.states, self._state_format)
        self._suffixes, self._params = suffixes, params
        self._states += states
        self._rule_states += [own for group in groups for own in group.states]
        self._written = None
        for group, template in zip(groups, templates, strict=True):
            self._groups.append(group)
            self._templates.append(template)
            count = len(group.arrays)
            for i in range(first, first + count):
                self._fill_initial(i)
            self._share_states(group)
            variants = list(dict.fromkeys(group.variants))
            self._backend.add_group(
                self,
                [(rule, group.packed(rule, dtype)) for rule, dtype in variants],
                [variants.index(variant) for variant in group.variants],
                [
                    self._matrix(group.hypers, a) if RULES[r].needs_matrix else None
                    for r, a in zip(group.rules, group.arrays, strict=True)
                ],
                first,
            )
            first += count

    def _share_states(self, group: ParamGroup) -> None:
        """Creates the states that all arrays share, when the first group that has any is added."""
        states = next((RULES[rule].shared for rule in group.rules if RULES[rule].shared), ())
        if states and not self._shared:
            self._shared_values = np.zeros(len(states))
            self._shared = {state.name: self._shared_values[k : k + 1].reshape(()) for k, state in enumerate(states)}
            self._fill_shared()

    def _fill_shared(self) -> None:
        """Sets the states that all arrays share to the initial values of the first group that has any."""
        shared = ((group, RULES[rule].shared) for group in self._groups for rule in group.rules if RULES[rule].shared)
        group, states = next(shared, (None, ()))
        for state in states:
            self._shared[state.name][...] = self._first_value(state, cast(ParamGroup, group))

    def _first_value(self, state: formats.State, group: ParamGroup) -> float:
        """The initial value of a state."""
        first = state.initial
        return float(self._rule_values(group.hypers)[first] if isinstance(first, str) else first)

    def _use_cuda(self) -> None:
        """Switches to the CUDA backend, which is not even imported for NumPy arrays."""
        if not self._on_gpu:
            raise TypeError(f"{self._name()} works on NumPy arrays only; params has arrays on a GPU")
        from schuss._backends.cuda import Cuda

        self._backend = Cuda()
        self._set_backend(self._backend)

    # Gradients.

    @property
    def grads(self) -> Any:
        """The optimizer's own gradient buffers, in the structure of the parameters.

        They are created on first access, as zeros; ``step()`` without gradients uses them. Their dtype is the one that
        the update is computed in: float64 for float64 parameters, float32 for all others.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> w = np.ones(2)
        >>> opt = schuss.SGD({"w": w}, lr=0.5)
        >>> for _ in range(2):
        ...     opt.grads["w"] += 0.5
        >>> opt.step(zero_grads=True)
        True
        >>> w
        array([0.5, 0.5])
        """
        if self._grads is None:
            self._grads = trees.build(self._root(), self._new_gradient)
        return self._grads

    @grads.setter
    def grads(self, value: Any) -> None:
        if value is None or value is not self._grads:  # `opt.grads += g` assigns the same object back
            place = self._place("opt.grads", *self._suffixes[0])
            raise AttributeError(f"grads cannot be replaced; write into its arrays: {place}[...] = g")

    def zero_grad(self) -> None:
        """Sets the optimizer's own gradient buffers to zero."""
        if self._grads is not None:
            buffers = list(trees.leaves(self._root(), self._grads, "grads", "params"))
            for _, place, gradient in buffers:
                self._backend.check_zeroable(place, gradient)
            for _, _, gradient in buffers:
                gradient.fill(0)

    def _state_names(self, i: int) -> list[str]:
        """The names of the state arrays of a parameter, in order."""
        return self._state_format.names(self._rule_states[i])

    def _set_state_format(self, kept: formats.StateFormat) -> None:
        """Sets the state format; once there are arrays, only its rounding and seed may change."""
        self._backend.check_format(kept)
        self._set_seed(kept.rounding_seed)
        self._state_format = kept

    def _check_state_format(self, group: ParamGroup) -> None:
        """Raises if the state of a group cannot be stored in the requested format."""
        if self._state_format.dtype == "int8" and not self._takes_int8(group.hypers):
            raise ValueError(f'{self._name()} with these hyperparameters has no state_dtype="int8"; use "bfloat16"')

    def _reset_state(self) -> None:
        """Resets the state and bias corrections; the step count and master weights are kept."""
        for i, own in enumerate(self._states):
            for state in own[:-1] if self._state_format.master else own:
                state.fill(0)
            self._fill_initial(i)
        self._fill_shared()
        steps, skipped, groups = self._read_counters()
        self._write_counters(steps, skipped, [0] * len(groups))

    def _fill_initial(self, i: int) -> None:
        """Sets the initial values of a parameter's states that do not start at zero."""
        group = self._groups[self._suffixes[i][0]]
        arrays = dict(zip(self._state_names(i), self._states[i], strict=True))
        for state in self._rule_states[i]:
            if state.initial == "p":
                arrays[state.name][...] = arrays.get("master", self._params[i])
            elif (first := self._first_value(state, group)) != 0:
                arrays[state.name].fill(first)

    def _new_gradient(self, i: int) -> Any:
        return self._backend.new_gradient(self._params[i])

    # Settings, state and copies.

    def _checked(self, name: str, value: Any, place: str | None = None) -> Any:
        """Checks a new value for an option and returns it."""
        return self._fields[name].check(place or name, value)

    def _option(self, name: str) -> Any:
        """The current value of an option that can be changed."""
        return getattr(self, f"_{name}")

    def _change(self, name: str, value: Any) -> None:
        """Sets an option that can be changed."""
        checked = self._checked(name, value)
        max_grad_norm = checked if name == "max_grad_norm" else self._max_grad_norm
        nonfinite = checked if name == "nonfinite" else self._nonfinite
        self._configure_step(max_grad_norm, nonfinite)
        self._max_grad_norm, self._nonfinite = max_grad_norm, nonfinite

    def _configure_step(self, max_grad_norm: float | None, nonfinite: str) -> None:
        self._backend.configure(self, max_grad_norm, nonfinite)

    def _read_counters(self) -> tuple[int, int, list[int]]:
        """Steps taken, steps skipped, and the steps of each group."""
        return self._backend.counters(self)

    def _write_counters(self, steps: int, skipped: int, groups: Sequence[int]) -> None:
        self._backend.set_counters(self, steps, skipped, groups)

    def _exclusive(self, *others: _schuss.Core, nobody: bool = False) -> contextlib.AbstractContextManager[None]:
        """Exclusive access for a block, also to `others`; a concurrent step, save or load raises RuntimeError.

        With `nobody` this thread is excluded too.
        """
        return self._backend.exclusive(self, *others, nobody=nobody)

    def _check_idle(self) -> None:
        self._backend.check_idle(self)

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the last step's gradients, before clipping; None unless ``max_grad_norm`` is set.

        The gradients are divided by ``grad_scale`` first. On a GPU this waits for the step to finish.
        """
        return self._backend.grad_norm(self)

    if not TYPE_CHECKING:  # type checkers know these by the declarations in Options
        max_grad_norm = _setting("max_grad_norm", "The bound on the global gradient norm, or None.")
        nonfinite = _setting(
            "nonfinite", 'What a step does about NaN and infinities in gradients: "propagate", "skip" or "error".'
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step depends on besides parameters and gradients.

        Returns
        -------
        dict
            ``optimizer`` (the class's name), ``step``, ``skipped_steps``, ``max_grad_norm``, ``nonfinite``,
            ``param_groups`` (a dict of hyperparameters and its ``step`` for each group, with ``initial_lr`` where
            something is relative to it) and ``state``: for each group a dict from the state's name to arrays in the
            structure of the group's parameters. The arrays are views of the live state, or copies if it is on a GPU:
            copy views to keep a snapshot. `Lookahead` and `Ranger` add ``k``, ``alpha``, ``pullback`` and the slow
            weights. A smaller state dtype or master weights add the options ``state_dtype``, ``state_rounding``,
            ``state_seed`` and ``master_weights``, and the array ``master``; ``"int8"`` adds ``memory_order``, and an
            array ``<name>_scale`` for each state. A learning-rate schedule is a function and is not saved; its entry
            is ``"schedule"``, or ``{"schedule": state}`` if it keeps state.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> opt = schuss.Adam({"w": np.ones(2)})
        >>> opt.state_dict()["state"][0]["m"]
        {'w': array([0., 0.])}
        """
        return _state.state_dict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the result of :meth:`state_dict`; training then continues exactly as if uninterrupted.

        Arrays are copied. This optimizer's learning-rate schedules are kept; those with state have it restored.
        Everything is checked first: on an error nothing has changed.

        Raises
        ------
        TypeError, ValueError
            It is the state of another class or structure, or a shape, dtype or hyperparameter does not match.
        RuntimeError
            Another thread is stepping, saving or loading the optimizer.
        """
        _state.load_state_dict(self, state)

    def __reduce__(self) -> tuple[Any, ...]:
        self._backend.check_picklable()
        arguments = (type(self), *_state.constructor_arguments(self))
        return _state.rebuild, arguments, (_state.state_dict(self), self._grads)

    def __setstate__(self, state: tuple[Mapping[str, Any], Any]) -> None:
        self.load_state_dict(state[0])
        self._grads = state[1]

    def __repr__(self) -> str:
        elements = sum(array.size for array in self._params)
        dtypes = ", ".join(sorted({array.dtype.name for array in self._params}))
        held = sum(state.nbytes for states in self._states for state in states)
        lines = [
            f"{self._name()}: step {self.step_count}, {len(self._params)} arrays, {elements:,} elements "
            f"({dtypes}), state {held:,} bytes"
            + "".join(f", {name}={value!r}" for name, value in self._state_format.as_dict().items())
        ]
        for i, group in enumerate(self.param_groups):
            hypers = ", ".join(f"{name}={value!r}" for name, value in group.hypers.items())
            lines.append(f"  group {i}: {len(group['params'])} arrays, {hypers}")
        return "\n".join(lines)
