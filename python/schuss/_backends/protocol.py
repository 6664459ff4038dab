"""What a backend is to an optimizer, and an optimizer to a backend.

A backend knows where arrays lie and how a step over them is taken. An optimizer has one, from its first array on; it
passes itself to each call, so that neither keeps the other alive. Nothing here knows hyperparameters or groups.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from schuss import _schuss
from schuss._arrays.formats import State, StateFormat
from schuss._arrays.layout import Matrix


class Owner(_schuss.Core):
    """An optimizer as its backend sees it."""

    #: Arrays of NumPy, or of the backend's own kind.
    _params: list[Any]
    #: The state arrays of each parameter.
    _states: list[list[Any]]
    #: What the rule of each parameter says of its states.
    _rule_states: list[tuple[State, ...]]
    _state_format: StateFormat
    #: The states that all arrays share, as float64 numbers.
    _shared_values: np.ndarray | None
    #: For each group the structure of its parameters, with their numbers.
    _templates: list[Any]
    #: For each parameter its group, and where it is in the structure of that.
    _suffixes: list[tuple[int, str]]
    #: Whether the parameters were given in groups, as the gradients then are.
    _grouped: bool
    max_grad_norm: float | None
    nonfinite: Any

    def _root(self) -> Any:
        return self._templates if self._grouped else self._templates[0]

    def _place(self, name: str, group: int, suffix: str) -> str:
        """What an array is called in messages."""
        if not self._grouped:
            return name + suffix
        return f"param_groups[{group}]['params']{suffix}" if name == "params" else f"{name}[{group}]{suffix}"

    if TYPE_CHECKING:

        def _own_grads(self) -> Any: ...
        @staticmethod
        def _step_options(grad_scale: Any, zero_grads: Any) -> tuple[float, bool]: ...
        def _scheduled_values(self, step: int) -> list[list[float]]: ...
        def _is_written(self, array: Any) -> bool: ...
        def _refuse_changed(self, i: int | None) -> None: ...
        def _explain_structure(self, grads: Any) -> None: ...
        def _explain_shared(self, i: int, k: int) -> None: ...
        def _explain_nonfinite(self, i: int, at: int) -> None: ...
        def _explain_rates(self, one: float, other: float) -> None: ...


class Backend(Protocol):
    """Where an optimizer's arrays lie and its steps are taken."""

    # Arrays.

    def check_format(self, state_format: StateFormat) -> None:
        """Raises unless states can be stored in this format."""

    def adapt(self, place: str, array: Any) -> Any:
        """A parameter as the backend works on it; raises unless it can be updated in place."""

    def check_together(self, named: Sequence[tuple[str, Any]]) -> None:
        """Raises unless these adapted parameters can be one optimizer's."""

    def zeros(self, params: Sequence[Any], states: Sequence[Sequence[State]], state_format: StateFormat) -> Any:
        """The state arrays of each parameter, of zeros; a master copy has its numbers."""

    def new_gradient(self, param: Any) -> Any:
        """A gradient buffer of zeros for a parameter."""

    def check_zeroable(self, place: str, gradient: Any) -> None:
        """Raises unless a gradient buffer can be set to zero."""

    def check_picklable(self) -> None:
        """Raises unless an optimizer here can be pickled and copied."""

    # Steps.

    def step(self, owner: Owner, grads: Any = None, *, grad_scale: float = 1.0, zero_grads: bool = False) -> bool:
        """Takes a step; see `schuss._schuss.Core.step`."""
        ...

    def add_group(
        self,
        owner: Owner,
        rules: Sequence[tuple[str, np.ndarray]],
        rule_of: Sequence[int],
        matrices: Sequence[Matrix | None],
        first: int,
    ) -> None:
        """Adds a group: the parameters from `first` on, which the owner has with their states already.

        `rules` are its rules with their values; for each parameter `rule_of` is the place of its own among them, and
        `matrices` what it is to a rule with rows or columns.
        """

    def configure(self, owner: Owner, max_grad_norm: float | None, nonfinite: str) -> None:
        """Sets what a step does about large gradients and those that are not finite."""

    def grad_norm(self, owner: Owner) -> float | None:
        """The global norm of the last step's gradients, where it was measured."""

    # One caller at a time.

    def exclusive(
        self, owner: Owner, *others: _schuss.Core, nobody: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        """Exclusive access to the optimizer and others; with `nobody` this thread is kept out too."""
        ...

    def check_idle(self, owner: Owner) -> None:
        """Raises when a step, save or load is under way."""

    def counters(self, owner: Owner) -> tuple[int, int, list[int]]:
        """Steps taken, steps skipped, and the steps of each group."""
        ...

    def set_counters(self, owner: Owner, steps: int, skipped: int, groups: Sequence[int]) -> None:
        """Sets them."""

    # Parameters.

    def refuse_changed(self, owner: Owner) -> None:
        """Raises when a parameter is no longer what it was when the optimizer was made."""

    def saved_params(self, owner: Owner) -> contextlib.AbstractContextManager[None]:
        """A context that ends with the parameters' present values, also in those made read-only meanwhile."""
        ...
