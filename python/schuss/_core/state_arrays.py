"""The state arrays of an optimizer: their memory, initial values and reset.

The groups' rules say which states there are, the backend says where.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schuss._arrays import formats
from schuss._arrays.layout import Matrix
from schuss._backends.protocol import Change, Counters, GroupArrays
from schuss._core.group import ParamGroup
from schuss._core.kind import Kind
from schuss._core.rules import RULES
from schuss._core.settings import Settings


class StateArrays(Settings, Kind):
    """The base of `Optimizer` with its states."""

    def _init_states(self) -> None:
        self._states = []
        self._rule_states = []
        #: The scratch of each parameter, which is in no checkpoint.
        self._step_scratch: list[list[np.ndarray]] = []
        #: The states that all arrays share: float64 scalars by name, which are views of `_shared_values`.
        self._shared: dict[str, np.ndarray] = {}
        self._shared_values = None

    def _matrices(self, group: ParamGroup) -> list[Matrix | None]:
        """The shapes of a group's parameters that their rules see as matrices."""
        return [
            self._matrix(group.initial_hypers, array) if RULES[rule].needs_matrix else None
            for rule, array in zip(group.rules, group.arrays, strict=True)
        ]

    def _new_states(self, group: ParamGroup) -> tuple[list[list[Any]], list[list[Any]]]:
        """The states of a new group's arrays, at their initial values, and the scratch of each array."""
        if self._state_format.dtype == "int8" and not self._takes_int8(group.initial_hypers):
            name = self._with_obstacles(group.initial_hypers, self._takes_int8)
            raise ValueError(f'{name} has no state_dtype="int8"; use "bfloat16"')
        matrices = self._matrices(group)
        made: list[list[Any]] = self._backend.zeros(group.arrays, group.states, matrices, self._state_format)
        for states, arrays, param in zip(group.states, made, group.arrays, strict=True):
            self._fill_initial(group, states, arrays, self._backend.part(param))
        for_one_step = [RULES[rule].scratch for rule in group.rules]
        return made, self._backend.zeros(group.arrays, for_one_step, matrices, formats.StateFormat())

    def _fill_initial(
        self, group: ParamGroup, states: Sequence[formats.State], arrays: Sequence[Any], param: Any
    ) -> None:
        """Sets the initial values of a parameter's states that do not start at zero."""
        named = dict(zip(self._state_format.names(states, param), arrays, strict=True))
        for state in states:
            if state.initial == "p":
                named[state.name][...] = named.get("master", param)
            elif (first := self._first_value(state, group)) != 0:
                named[state.name].fill(first)

    def _group_arrays(
        self,
        groups: Sequence[ParamGroup],
        states: Sequence[list[Any]],
        scratch: Sequence[list[Any]],
        rule_states: Sequence[tuple[formats.State, ...]],
    ) -> list[GroupArrays]:
        """The groups as the backend takes them; states and scratch are those of all parameters."""
        result, at = [], 0
        for group in groups:
            own = slice(at, at := at + len(group.arrays))
            variants = list(dict.fromkeys(group.variants))
            result.append(
                GroupArrays(
                    rules=[(rule, group._packed_values(rule, dtype)) for rule, dtype in variants],
                    rule_of=[variants.index(variant) for variant in group.variants],
                    params=group.arrays,
                    states=list(states[own]),
                    scratch=list(scratch[own]),
                    rule_states=list(rule_states[own]),
                    matrices=self._matrices(group),
                )
            )
        return result

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
        return float(self._rule_values(group.initial_hypers)[first] if isinstance(first, str) else first)

    def _state_names(self, i: int) -> list[str]:
        """The names of the state arrays of a parameter, in order."""
        return self._state_format.names(self._rule_states[i], self._params[i])

    def _state_format_changed(self, kept: formats.StateFormat) -> list[Change]:
        """What changes with this state format; once there are arrays, only its rounding and seed may change."""
        self._backend.check_format(kept)
        return [(self, "_rounding_seed", kept.rounding_seed), (self, "_state_format", kept)]

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
