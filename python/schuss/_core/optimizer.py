"""The base class of all optimizers: structures, groups, state, gradients.

It knows arrays and hyperparameters, but no rule: a subclass adds its hyperparameters and says which rule they select.
The step itself is in the extension module.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, formats, trees
from schuss._arrays.layout import Matrix
from schuss._backends.host import NEW
from schuss._backends.protocol import Change, Counters, GroupArrays, place
from schuss._core import documentation, options, rows
from schuss._core import state as _state
from schuss._core.group import ParamGroup, check_group, is_group, without_params
from schuss._core.kind import Kind
from schuss._core.rules import RULES
from schuss._core.settings import Settings


class Optimizer(Settings, Kind):
    """The base class of all optimizers; use one of its subclasses.

    A subclass declares its hyperparameters: annotated class attributes, with their defaults, are the parameters of its
    constructor. It overrides ``_rule`` if its rule does not have the class's name in lower case, and ``_rule_values``
    if the rule's hyperparameters have other names.
    """

    # Here too, so that help() and completion show it with the other methods.
    step = _schuss.Core.step

    def step_rows(self, grads: Any, *, grad_scale: float = 1.0, partial: bool = False) -> bool:
        """Takes a step in which arrays may have gradients for some of their rows only, such as tables of embeddings.

        Only these rows, slices along the first axis, and their states are read and written: all other rows are left
        alone, as arrays without a gradient are. The cost does not depend on the size of the table.

        Parameters
        ----------
        grads : structure
            In the structure of the parameters. For some rows of an array, a pair ``(indices, values)``: integers of
            shape ``(k,)``, >= 0 and in any order, and floating-point numbers of shape ``(k, *row)``. The gradients of
            an index that occurs several times are added, in their order, in the dtype that the update is computed in.
            For a whole array a gradient, or None, as for :meth:`step`.
        grad_scale : float, default 1.0
            What gradients are divided by first, finite and > 0.
        partial : bool, default False
            Whether dicts may lack keys; what is missing is as None.

        Returns
        -------
        bool
            Whether the step was taken; it is not when ``nonfinite="skip"`` and a gradient has a NaN or an infinity.

        Raises
        ------
        TypeError, ValueError
            Gradients or indices do not fit, the table is in Fortran order or on a GPU, the state is int8, or this
            optimizer cannot step over rows; nothing has changed.
        FloatingPointError
            A gradient has a NaN or an infinity and ``nonfinite="error"``; nothing has changed.
        RuntimeError
            The optimizer is in the middle of a step, or of being saved or loaded, in another thread.

        Notes
        -----
        `SGD`, `Adagrad`, `Adadelta`, `RMSprop`, `Adam`, `AdamW`, `AdamMini` with a block for each row, `Lion` and
        `FTRL` can. A call is one step of the optimizer and of the arrays that have any gradient: schedules and bias
        corrections count it for all of their rows. Momentum, averages and weight decay act in the steps in which a row
        has a gradient, with the same bits as in a step over the whole array; with ``catch_up=True``, `Adam` makes up
        for the decay of the moments in the others. Norms for clipping are those of the sums.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> table = np.ones((5, 2))
        >>> opt = schuss.SGD({"table": table, "bias": np.ones(2)}, lr=0.5)
        >>> opt.step_rows({"table": ([3, 0, 3], np.ones((3, 2))), "bias": np.ones(2)})
        True
        >>> table
        array([[0.5, 0.5],
               [1. , 1. ],
               [1. , 1. ],
               [0. , 0. ],
               [1. , 1. ]])
        """
        return rows.step(self, grads, grad_scale, partial)

    # Construction.

    @classmethod
    def _documented(cls, doc: str) -> str:
        defaults = {field.name: field.default for field in cls._parameters.values()}
        return documentation.completed(doc, cls._parameters, cls._takes_int8(defaults))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("Optimizer is what all optimizers have in common; make one of those in schuss.OPTIMIZERS")

    def _setup(self, params: Any, hypers: dict[str, Any], whole: dict[str, Any]) -> None:
        if hasattr(self, "_defaults"):
            raise TypeError(f"this {self._name()} is made already; make a new one instead of calling __init__")
        params = trees.listed(params)
        self._backend = NEW.get()
        if checks.any_on_gpu(params):
            self._use_cuda()
        self._max_grad_norm = self._checked("max_grad_norm", whole["max_grad_norm"])
        self._track_grad_norm = self._checked("track_grad_norm", whole["track_grad_norm"])
        self._nonfinite = self._checked("nonfinite", whole["nonfinite"])
        kept = options.state_format(whole)
        changes = [*self._limits_changed(self._limits_now()), *self._state_format_changed(kept)]
        self._backend.changes(changes).make()
        for name, value in hypers.items():  # also those that every group overrides
            self._parameters[name].check(name, value)
        self._defaults = hypers
        self._groups: list[ParamGroup] = []
        self._params: list[np.ndarray] = []
        self._states: list[list[np.ndarray]] = []
        self._rule_states: list[tuple[formats.State, ...]] = []
        #: The scratch of each parameter, which is in no checkpoint.
        self._step_scratch: list[list[np.ndarray]] = []
        #: The states that all arrays share: float64 scalars by name, and the array that holds them.
        self._shared: dict[str, np.ndarray] = {}
        self._shared_values: np.ndarray | None = None
        self._templates: list[Any] = []
        self._given_in: list[Any] = []
        self._suffixes: list[tuple[int, str]] = []
        self._grads: Any = None
        self._around = []
        self._written: list[tuple[int, int]] | None = None
        self._grouped = isinstance(params, (list, tuple)) and any(is_group(entry) for entry in params)
        if not self._grouped:
            if is_group(params) and any(name in hypers for name in params):
                raise TypeError("params looks like one group of parameters; groups come in a list: [{'params': ...}]")
            self._backend.changes(self._extended([(params, {})], grouped=False)).make()
            return
        for i, entry in enumerate(params):
            if not is_group(entry):
                raise TypeError(f"params[{i}] must be a dict with a 'params' key, like the other groups")
        additions = [(entry["params"], without_params(entry)) for entry in params]
        self._backend.changes(self._extended(additions, grouped=True)).make()

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
        check_group(group)
        with self._exclusive():
            self._backend.changes(self._group_added(group)).make()

    def _group_added(self, group: Mapping[str, Any], others: Sequence[Any] = ()) -> list[Change]:
        """What changes when a group is added; its arrays must share no memory with `others` either."""
        changes = self._extended([(group["params"], without_params(group))], grouped=True, others=others)
        if self._grads is not None:
            made = {name: value for _, name, value in changes}
            first = len(self._params)
            buffers = self._backend.new_gradients(made["_params"][first:])
            new = trees.build(made["_templates"][-1], lambda i: buffers[i - first])
            changes.insert(0, (self, "_grads", [*self._grads, new] if self._grouped else [self._grads, new]))
        return changes

    def _extended(
        self, additions: list[tuple[Any, dict[str, Any]]], *, grouped: bool, others: Sequence[Any] = ()
    ) -> list[Change]:
        """What changes when groups are added."""
        suffixes, params, templates = list(self._suffixes), list(self._params), list(self._templates)
        groups, first, first_group = list(self._groups), len(self._params), len(self._groups)
        given_in = list(self._given_in)
        for structure, given in additions:
            structure = trees.listed(structure)
            given_in.append(structure)
            index = len(groups)
            where = f"param_groups[{index}]['params']" if grouped else "params"
            unknown = [name for name in given if name not in self._defaults]
            if unknown:
                if unknown[0] in self._parameters and self._parameters[unknown[0]].whole:
                    raise TypeError(f"param_groups[{index}] has {unknown[0]!r}, which is for the optimizer as a whole")
                known = ", ".join(self._defaults)
                raise TypeError(f"param_groups[{index}] has unknown {unknown[0]!r}; {self._name()} takes {known}")
            template, leaves = trees.flatten(structure, where, len(params))
            if not leaves:
                raise ValueError(
                    f"{where} has no array, and an optimizer needs at least one; if layers make theirs in the first "
                    "forward pass, run one first"
                )
            arrays = [self._backend.adapt(where + suffix, array) for suffix, array in leaves]
            suffixes += [(index, suffix) for suffix, _ in leaves]
            params += arrays
            prefix = f"param_groups[{index}]: " if grouped else ""
            shown = tuple(params[i] for i, _, _ in trees.leaves(template, template, where, where))
            hypers = {**self._defaults, **given}
            group = ParamGroup(type(self), arrays, hypers, prefix, shown=shown, owner=weakref.ref(self))
            groups.append(group)
            templates.append(template)
        named = [(place(grouped, "params", *at), array) for at, array in zip(suffixes, params, strict=True)]
        self._backend.check_together(named)
        checks.check_apart(named)
        buffers = [] if self._grads is None else [leaf for _, leaf in trees.flatten(self._grads, "grads")[1]]
        own = checks.byte_ranges([*(state for states in self._states for state in states), *buffers, *others])
        for where, array in named[first:]:
            if checks.overlaps(own, array):
                raise ValueError(f"{where} shares memory with this optimizer's own state or gradients; pass a copy")
        formats.check_params(self._state_format, named[first:])
        rule_states = list(self._rule_states)
        states, scratch = list(self._states), list(self._step_scratch)
        for group in groups[first_group:]:
            self._check_state_format(group)
            states += self._backend.zeros(group.arrays, group.states, self._matrices(group), self._state_format)
            rule_states += group.states
            for_one_step = [RULES[rule].scratch for rule in group.rules]
            scratch += self._backend.zeros(group.arrays, for_one_step, self._matrices(group), formats.StateFormat())
        for i in range(first, len(params)):
            self._fill_initial(groups[suffixes[i][0]], rule_states[i], states[i], self._backend.part(params[i]))
        shared, values = self._shared_by(groups)
        described, at = [], 0
        for group in groups:
            count = len(group.arrays)
            variants = list(dict.fromkeys(group.variants))
            described.append(
                GroupArrays(
                    rules=[(rule, group._packed_values(rule, dtype)) for rule, dtype in variants],
                    rule_of=[variants.index(variant) for variant in group.variants],
                    params=group.arrays,
                    states=states[at : at + count],
                    scratch=scratch[at : at + count],
                    rule_states=rule_states[at : at + count],
                    matrices=self._matrices(group),
                )
            )
            at += count
        root = templates if grouped else templates[0]
        return [
            (self, "_grouped", grouped),
            (self, "_suffixes", suffixes),
            (self, "_params", params),
            (self, "_states", states),
            (self, "_step_scratch", scratch),
            (self, "_rule_states", rule_states),
            (self, "_templates", templates),
            (self, "_groups", groups),
            (self, "_shared", shared),
            (self, "_shared_values", values),
            (self, "_written", None),
            (self, "_given_in", given_in),
            *self._backend.given(self, templates, given_in),
            *self._backend.arranged(self, described, first_group, root, values),  # last: it cannot be taken back
        ]

    def _matrices(self, group: ParamGroup) -> list[Matrix | None]:
        """The shapes of a group's parameters that their rules see as matrices."""
        return [
            self._matrix(group.resting, array) if RULES[rule].needs_matrix else None
            for rule, array in zip(group.rules, group.arrays, strict=True)
        ]

    def _shared_by(self, groups: Sequence[ParamGroup]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """The states that all arrays share, made for the first group that has any."""
        group, states = self._first_sharing(groups)
        if not states or self._shared:
            return self._shared, self._shared_values
        values = np.array([self._first_value(state, group) for state in states])
        return {state.name: values[k : k + 1].reshape(()) for k, state in enumerate(states)}, values

    @staticmethod
    def _first_sharing(groups: Sequence[ParamGroup]) -> tuple[Any, Sequence[formats.State]]:
        """The first group with states that all arrays share, and these states."""
        sharing = ((group, RULES[rule].shared) for group in groups for rule in group.rules if RULES[rule].shared)
        return next(sharing, (None, ()))

    def _first_value(self, state: formats.State, group: ParamGroup) -> float:
        """The initial value of a state."""
        first = state.initial
        return float(self._rule_values(group.resting)[first] if isinstance(first, str) else first)

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
            self._grads = trees.build(self._root(), self._backend.new_gradients(self._params).__getitem__)
        return self._grads

    @grads.setter
    def grads(self, value: Any) -> None:
        if value is None or value is not self._grads:  # `opt.grads += g` assigns the same object back
            place = self._place("opt.grads", *self._suffixes[0])
            raise AttributeError(f"grads cannot be replaced; write into its arrays: {place}[...] = g")

    def zero_grad(self) -> None:
        """Sets the optimizer's own gradient buffers to zero."""
        if self._grads is not None:
            leaves = trees.leaves(self._root(), self._grads, "grads", "params")
            buffers = [(place, gradient) for _, place, gradient in leaves if gradient is not None]
            for place, gradient in buffers:
                self._backend.check_zeroable(place, gradient)
            self._backend.changes(fills=[(gradient, 0.0) for _, gradient in buffers]).make()

    def _state_names(self, i: int) -> list[str]:
        """The names of the state arrays of a parameter, in order."""
        return self._state_format.names(self._rule_states[i])

    def _state_format_changed(self, kept: formats.StateFormat) -> list[Change]:
        """What changes with this state format; once there are arrays, only its rounding and seed may change."""
        self._backend.check_format(kept)
        return [(self, "_rounding_seed", kept.rounding_seed), (self, "_state_format", kept)]

    def _check_state_format(self, group: ParamGroup) -> None:
        """Raises if the state of a group cannot be stored in the requested format."""
        if self._state_format.dtype == "int8" and not self._takes_int8(group.resting):
            raise ValueError(f'{self._name()} with these hyperparameters has no state_dtype="int8"; use "bfloat16"')

    def _reset(self, steps: int, skipped: int) -> dict[str, Any]:
        """What changes when state and bias corrections are reset; step counts and master weights are kept."""
        fills, jobs = [], []
        for i, own in enumerate(self._states):
            group, names = self._groups[self._suffixes[i][0]], self._state_names(i)
            arrays = dict(zip(names, own, strict=True))
            master = arrays.pop("master", None)
            for state in self._rule_states[i]:
                if state.initial == "p":
                    param = self._backend.part(self._params[i]) if master is None else master
                    jobs.append(self._backend.job("copy", [arrays.pop(state.name)], grads=[param]))
                else:
                    fills.append((arrays.pop(state.name), self._first_value(state, group)))
            fills += [(scales, 0.0) for scales in arrays.values()]
        group, states = self._first_sharing(self._groups)
        fills += [(self._shared[state.name], self._first_value(state, group)) for state in states]
        counted = self._counted(Counters(steps, skipped, [0] * len(self._groups), []))
        return {"attributes": counted, "fills": fills, "jobs": jobs}

    def _fill_initial(
        self, group: ParamGroup, states: Sequence[formats.State], arrays: Sequence[Any], param: Any
    ) -> None:
        """Sets the initial values of a parameter's states that do not start at zero."""
        named = dict(zip(self._state_format.names(states), arrays, strict=True))
        for state in states:
            if state.initial == "p":
                named[state.name][...] = named.get("master", param)
            elif (first := self._first_value(state, group)) != 0:
                named[state.name].fill(first)

    # Settings, state and copies.

    def _exclusive(self, *others: _schuss.Core) -> contextlib.AbstractContextManager[None]:
        """Exclusive access for a block, also to `others`; a concurrent step, save or load raises RuntimeError."""
        return self._backend.exclusive(self, *others)

    @property
    def _takes_gradients(self) -> bool:
        """Whether a step takes gradients alone: no closure, no Hessian."""
        return type(self).step is _schuss.Core.step

    @property
    def _stepped(self) -> Optimizer:
        """The optimizer that holds the arrays; wrappers have another one."""
        return self

    def _check_idle(self) -> None:
        self._backend.check_idle(self)

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

    @overload
    def load_state_dict(self, state: Mapping[str, Any], *, strict: Literal[True] = True) -> None: ...
    @overload
    def load_state_dict(self, state: Mapping[str, Any], *, strict: Literal[False]) -> list[str]: ...
    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> list[str] | None:
        """Restores the result of :meth:`state_dict`; training then continues exactly as if uninterrupted.

        Arrays are copied. This optimizer's learning-rate schedules are kept; those with state have it restored.
        Everything is checked first: on an error nothing has changed.

        Parameters
        ----------
        state : dict
            The result of :meth:`state_dict` of an optimizer of the same class.
        strict : bool, default True
            Raise if anything does not fit. ``False`` loads what fits, such as the body of a model whose last layer is
            new: an array whose states do not all fit keeps them, with its own step count for bias correction.

        Returns
        -------
        list of str, or None
            With ``strict=False``, a message for everything that was not loaded; else None.

        Raises
        ------
        TypeError, ValueError
            It is the state of another class or structure, or a shape, dtype or hyperparameter does not match.
        RuntimeError
            Another thread is stepping, saving or loading the optimizer.
        """
        unfit = _state.load_state_dict(self, state, strict)
        return None if strict else unfit

    def __reduce__(self) -> tuple[Any, ...]:
        self._backend.check_picklable()
        arguments = (type(self), *_state.constructor_arguments(self))
        return _state.rebuild, arguments, (_state.state_dict(self), self._grads)

    def __setstate__(self, state: tuple[Mapping[str, Any], Any]) -> None:
        self.load_state_dict(state[0])
        self._grads = None if state[1] is None else _state.writable(state[1])

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
