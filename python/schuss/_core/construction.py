"""Making an optimizer, and adding groups to it: everything is checked before anything is changed.

It knows arrays, groups and states, but neither steps nor checkpoints.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from schuss._arrays import checks, formats, trees
from schuss._backends.host import NEW
from schuss._backends.protocol import Change, place
from schuss._core import options
from schuss._core.given_groups import are_groups, is_group, listed, refuse_whole, without_params
from schuss._core.group import ParamGroup
from schuss._core.state_arrays import StateArrays

if TYPE_CHECKING:
    from schuss._core.state import Origin
    from schuss._core.stepping import Kept


class Construction(StateArrays):
    """The base of `Optimizer` that makes one."""

    def _setup(self, params: Any, hypers: dict[str, Any], whole: dict[str, Any]) -> None:
        self._refuse_made()
        params = listed(params)
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
        self._init_states()
        self._by_array: Kept | None = None
        self._templates: list[Any] = []
        self._given_in: list[Any] = []
        self._suffixes: list[tuple[int, str]] = []
        self._grads: Any = None
        #: Of a copy: what it is one of.
        self._origin: Origin | None = None
        self._wrapped_by = []
        self._written: list[tuple[int, int]] | None = None
        self._grouped = are_groups(params)
        if not self._grouped and is_group(params) and any(name in hypers for name in params):
            raise TypeError("params looks like one group of parameters; groups come in a list: [{'params': ...}]")
        additions = [(one["params"], without_params(one)) for one in params] if self._grouped else [(params, {})]
        self._backend.changes(self._extended(additions, grouped=self._grouped)).make()

    def _refuse_made(self) -> None:
        """Raises if the constructor has been called before."""
        if hasattr(self, "_defaults"):
            raise TypeError(f"this {self._name()} is made already; make a new one instead of calling __init__")

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
            refuse_whole(index, given, self._parameters)
            given = {name: value for name, value in given.items() if name in self._defaults or not _is_off(name, value)}
            unknown = [name for name in given if name not in self._defaults]
            if unknown:
                known = ", ".join(self._defaults)
                raise TypeError(f"param_groups[{index}] has unknown {unknown[0]!r}; {self._name()} takes {known}")
            template, leaves = trees.flatten(structure, where, len(params))
            if not leaves:
                raise ValueError(
                    f"{where} has no array, and an optimizer needs at least one; if layers make theirs in the first "
                    "forward pass, run one first"
                )
            trees.check_paths(where, leaves)
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
        checks.check_no_overlap(named)
        buffers = [] if self._grads is None else [leaf for _, leaf in trees.flatten(self._grads, "grads")[1]]
        own = checks.byte_ranges([*(state for states in self._states for state in states), *buffers, *others])
        for where, array in named[first:]:
            if checks.overlaps(own, array):
                raise ValueError(f"{where} shares memory with this optimizer's own state or gradients; pass a copy")
        formats.check_params(self._state_format, named)
        rule_states = list(self._rule_states)
        states, scratch = list(self._states), list(self._step_scratch)
        for group in groups[first_group:]:
            made, for_one_step = self._new_states(group)
            states += made
            scratch += for_one_step
            rule_states += group.states
        shared, values = self._shared_by(groups)
        described = self._group_arrays(groups, states, scratch, rule_states)
        root = templates if grouped else templates[0]
        return [
            *((group, "_where", "param_groups[0]: ") for group in self._groups if not self._grouped),
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

    def _use_cuda(self) -> None:
        """Switches to the CUDA backend, which is not even imported for NumPy arrays."""
        if not self._on_gpu:
            raise TypeError(f"{self._name()} works on NumPy arrays only; params has arrays on a GPU")
        from schuss._backends.cuda import Cuda

        self._backend = Cuda()
        self._set_backend(self._backend)


def _is_off(name: str, value: Any) -> bool:
    """Whether it turns off what `split_groups` does; a class that never adapts or decays takes it too."""
    return value is False if name == "adapt" else name == "weight_decay" and type(value) in (int, float) and value == 0
