"""The interface between an optimizer and its backend.

A backend knows where arrays are stored and how to run a step over them. Each optimizer has one backend and passes
itself to every call, which avoids a reference cycle. Nothing here knows hyperparameters or groups.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from schuss import _schuss
from schuss._arrays.formats import State, StateFormat
from schuss._arrays.layout import Matrix
from schuss._arrays.tensor_files import Stored

#: What a step does about NaN and infinities in gradients.
Nonfinite = Literal["propagate", "skip", "error"]
#: An object, the name of an attribute, and its new value.
Change = tuple[Any, str, Any]


class Counters(NamedTuple):
    """How many steps were taken."""

    steps: int
    skipped: int
    #: The steps of each group.
    groups: list[int]
    #: How many of its group's steps each array has missed, for lack of a gradient; empty if none has.
    missed: list[int]


class Limits(NamedTuple):
    """What a step does about the norm of gradients and about those that are not finite."""

    max_grad_norm: float | None
    track_grad_norm: bool
    nonfinite: str


#: A function written in Python, the argument with which it changes something, and that with which it takes this back.
Call = tuple[Callable[[Any], Any], Any, Any]
#: An array to change, and the array with its new elements.
Copy = tuple[Any, Any]


def packed(values: Sequence[float] = (), lr: float = 0.0) -> list[float]:
    """A rule's values as groups lay them out: behind six that all groups have, of which tools use none."""
    return [0.0, lr, 0.0, 0.0, 0.0, 0.0, *values]


class GroupArrays(NamedTuple):
    """A group as a backend takes it: its rules with their values; then lists with an entry for each array."""

    rules: list[tuple[str, np.ndarray]]
    #: The number of the array's rule.
    rule_of: list[int]
    params: list[Any]
    states: list[list[Any]]
    #: Its scratch.
    scratch: list[list[Any]]
    #: The states of each parameter, as its rule describes them.
    rule_states: list[tuple[State, ...]]
    #: Its shape as a matrix, for a rule with rows or columns.
    matrices: list[Matrix | None]


def place(grouped: bool, name: str, group: int, suffix: str) -> str:
    """The name of an array in messages."""
    if not grouped:
        return name + suffix
    return f"param_groups[{group}]['params']{suffix}" if name == "params" else f"{name}[{group}]{suffix}"


class Owner(_schuss.Core):
    """An optimizer as its backend sees it."""

    #: NumPy arrays, or the backend's own array type.
    _params: list[Any]
    #: The state arrays of each parameter.
    _states: list[list[Any]]
    #: The states of each parameter, as its rule describes them.
    _rule_states: list[tuple[State, ...]]
    _state_format: StateFormat
    #: The values of the states that all arrays share, in float64.
    _shared_values: np.ndarray | None
    #: For each group the structure of its parameters, with parameter numbers as leaves.
    _templates: list[Any]
    #: For each parameter its group and its path in the group's structure.
    _suffixes: list[tuple[int, str]]
    #: Whether the parameters were given in groups; gradients then are too.
    _grouped: bool
    max_grad_norm: float | None
    track_grad_norm: bool
    nonfinite: Nonfinite
    #: What messages call the arrays that are being read.
    _arguments: str = "grads"
    #: The names of parameters in messages, by group and path, where a framework has its own.
    _array_names: Mapping[tuple[int, str], str] = MappingProxyType({})

    def _root(self) -> Any:
        return self._templates if self._grouped else self._templates[0]

    def _place(self, name: str, group: int, suffix: str) -> str:
        """The name of an array in messages."""
        own = self._array_names.get((group, suffix))
        if own is None or name not in ("params", "grads"):
            return place(self._grouped, name, group, suffix)
        return own if name == "params" else f"the gradient of {own}"

    if TYPE_CHECKING:

        def _own_grads(self) -> Any: ...
        @staticmethod
        def _step_options(grad_scale: Any, zero_grads: Any, partial: Any) -> tuple[float, bool, bool]: ...
        def _scheduled_values(self, step: int) -> list[list[float]]: ...
        def _is_written(self, array: Any) -> bool: ...
        def _refuse_changed(self, i: int | None) -> None: ...
        def _look_again(self) -> list[tuple[Any, list[Any]]]: ...

        def _matrix_work(self, program: str, steps: Sequence[tuple[int, int]]) -> _schuss.Changes | None:
            """Changes scratch with matrix products, after a program before the step, which optimizers of matrices have.

            `steps` has the number of each array that has a gradient, with the step that it takes. Returns what else
            changes with the step.
            """

        def _explain_structure(self, grads: Any, partial: bool) -> None: ...
        def _explain_shared(self, i: int, k: int) -> None: ...
        def _explain_nonfinite(self, i: int, at: int, so: str = "") -> None: ...
        def _explain_disagreement(self, name: str, one: float, other: float) -> None: ...


class Backend(Protocol):
    """Where an optimizer's arrays are stored and its steps run."""

    # Arrays.

    def check_format(self, state_format: StateFormat) -> None:
        """Raises unless states can be stored in this format."""

    def adapt(self, place: str, array: Any) -> Any:
        """A parameter as the backend uses it; raises unless it can be updated in place."""

    def check_together(self, named: Sequence[tuple[str, Any]]) -> None:
        """Raises unless these adapted parameters can belong to one optimizer."""

    def zeros(
        self,
        params: Sequence[Any],
        states: Sequence[Sequence[State]],
        matrices: Sequence[Matrix | None],
        state_format: StateFormat,
    ) -> Any:
        """Zeroed state arrays for each parameter; a master copy starts with its values.

        `matrices` has the shapes of parameters that their rules see as matrices.
        """

    def part(self, param: Any) -> Any:
        """The elements of a parameter that its states have: all, unless processes share it."""

    def stored(self, array: Any) -> Stored:
        """A parameter or state as a checkpoint has it."""
        ...

    def new_gradients(self, params: Sequence[Any]) -> Sequence[Any]:
        """Gradient buffers of zeros for parameters."""
        ...

    def check_zeroable(self, place: str, gradient: Any) -> None:
        """Raises unless a gradient buffer can be set to zero."""

    def check_picklable(self) -> None:
        """Raises unless optimizers with this backend can be pickled and copied."""

    # Steps.

    def step(
        self,
        owner: Owner,
        grads: Any = None,
        *,
        grad_scale: float = 1.0,
        zero_grads: bool = False,
        partial: bool = False,
    ) -> bool:
        """Takes a step; see `schuss._schuss.Core.step`."""
        ...

    def run(self, owner: Owner, program: str, arrays: Any, changes: Sequence[Change]) -> None:
        """Runs another program than the step, then makes changes; see `schuss._schuss.Core._run`."""

    def arranged(
        self, owner: Owner, groups: Sequence[GroupArrays], first: int, root: Any, shared: np.ndarray | None
    ) -> list[Change]:
        """What changes when an optimizer has these groups; those from number `first` on are new.

        `root` is the structure of all parameters, and `shared` has the values of the states that all arrays share.
        """
        ...

    def given(self, owner: Owner, templates: Sequence[Any], structures: Sequence[Any]) -> list[Change]:
        """What changes when the groups' parameters were given in these structures, which steps look at again."""
        ...

    def limits(self, owner: Owner, limits: Limits) -> list[Change]:
        """What changes when large and non-finite gradients are handled in this way."""
        ...

    def norms(self, owner: Owner) -> tuple[float | None, float | None]:
        """The global norm of the last step's gradients, if it was measured, and its bound, if it had one."""
        ...

    # One caller at a time.

    def exclusive(self, owner: Owner, *others: _schuss.Core) -> contextlib.AbstractContextManager[None]:
        """Exclusive access to the optimizer and `others`."""
        ...

    def check_idle(self, owner: Owner) -> None:
        """Raises if a step, save or load is in progress."""

    def counters(self, owner: Owner) -> Counters:
        """How many steps were taken."""
        ...

    def counted(self, owner: Owner, counters: Counters) -> list[Change]:
        """What changes when the counters have these values."""
        ...

    # Parameters.

    def refuse_changed(self, owner: Owner) -> None:
        """Raises if a parameter array was changed (resized, retyped, made read-only) since the optimizer was made."""

    def refuse_replaced(self, owner: Owner) -> None:
        """Raises if the list or dict that the optimizer was given now has another array in a parameter's place."""

    def other_values(
        self, owner: Owner, wrappers: Sequence[_schuss.Core], job: Any
    ) -> contextlib.AbstractContextManager[None]:
        """A context in which a job has given the parameters other values; it restores them, even if read-only then.

        Meanwhile nobody can change the optimizer or its wrappers.
        """
        ...

    # Changes.

    def changes(
        self,
        attributes: Sequence[Change] = (),
        *,
        copies: Sequence[Copy] = (),
        fills: Sequence[tuple[Any, float]] = (),
        jobs: Sequence[Any] = (),
    ) -> _schuss.Changes:
        """Changes to make together, in one call that cannot be interrupted.

        Jobs are run first, then arrays copied, then arrays filled with a number. Everything must have been checked.
        """
        ...

    def job(
        self,
        tool: str,
        arrays: Sequence[Any],
        values: Sequence[float] = (),
        *,
        program: str = "step",
        grads: Sequence[Any] = (),
        states: Sequence[Sequence[Any]] = (),
    ) -> Any:
        """A tool of the kernels over arrays in place, as one of the jobs of `changes`."""
