"""The backend for NumPy arrays: it forwards to the extension module. It knows no optimizer class."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Sequence
from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, formats, layout, trees
from schuss._arrays.tensor_files import Stored
from schuss._backends import tools
from schuss._backends.protocol import Backend, Change, Copy, Counters, GroupArrays, Limits, Owner


class Host:
    """The backend for NumPy arrays; it has no state, so most optimizers share one instance."""

    def check_format(self, state_format: formats.StateFormat) -> None:
        """Every format is supported."""

    def adapt(self, place: str, array: Any) -> Any:
        checks.check_written(place, array)
        return array

    def check_together(self, named: Sequence[tuple[str, Any]]) -> None:
        """Nothing to check: all arrays are in host memory."""

    def zeros(
        self,
        params: Sequence[Any],
        states: Sequence[Sequence[formats.State]],
        matrices: Sequence[layout.Matrix | None],
        state_format: formats.StateFormat,
    ) -> list[list[np.ndarray]]:
        return layout.zeros(params, states, state_format)

    def part(self, param: Any) -> Any:
        return param

    def stored(self, array: Any) -> Stored:
        return Stored(array, array.shape, 0, checks.order(array))

    def _shards(self, groups: Sequence[GroupArrays]) -> _schuss.Shards | None:
        """How processes share the arrays, if they do."""
        return None

    def new_gradients(self, params: Sequence[Any]) -> list[np.ndarray]:
        return layout.buffers(params)

    def check_zeroable(self, place: str, gradient: Any) -> None:
        checks.check_zeroable(place, gradient)

    def check_picklable(self) -> None:
        """Optimizers over NumPy arrays always can be pickled."""

    def step(
        self,
        owner: Owner,
        grads: Any = None,
        *,
        grad_scale: float = 1.0,
        zero_grads: bool = False,
        partial: bool = False,
    ) -> bool:
        return _schuss.Core.step(owner, grads, grad_scale=grad_scale, zero_grads=zero_grads, partial=partial)

    def run(self, owner: Owner, program: str, arrays: Any, changes: Sequence[Change]) -> None:
        owner._run(program, arrays, _schuss.Changes(changes))

    def arranged(
        self, owner: Owner, groups: Sequence[GroupArrays], first: int, root: Any, shared: np.ndarray | None
    ) -> list[Change]:
        kept = owner._state_format
        given = [
            (
                group.rules,
                group.rule_of,
                group.params,
                [
                    formats.for_kernels(kept, *own)
                    for own in zip(group.rule_states, group.states, group.scratch, strict=True)
                ],
                group.matrices,
            )
            for group in groups
        ]
        arrangement = _schuss.Arrangement(
            given,
            trees.in_order(root),
            kept.small,
            kept.master,
            shared,
            owner._counters[3],
            self._shards(groups),
        )
        return [(owner, "_arrangement", arrangement)]

    def given(self, owner: Owner, templates: Sequence[Any], structures: Sequence[Any]) -> list[Change]:
        pairs = zip(templates, structures, strict=True)
        return [(owner, "_given", [own for pair in pairs for own in trees.containers(*pair)])]

    def limits(self, owner: Owner, limits: Limits) -> list[Change]:
        return [(owner, "_limits", limits)]

    def norms(self, owner: Owner) -> tuple[float | None, float | None]:
        return owner._norms

    def exclusive(self, owner: Owner, *others: _schuss.Core) -> contextlib.AbstractContextManager[None]:
        return _schuss.ExclusiveLock(owner, *others)

    def check_idle(self, owner: Owner) -> None:
        _schuss.Core._check_idle(owner)

    def counters(self, owner: Owner) -> Counters:
        return Counters(*owner._counters)

    def counted(self, owner: Owner, counters: Counters) -> list[Change]:
        return [(owner, "_counters", counters)]

    def refuse_changed(self, owner: Owner) -> None:
        owner._refuse_changed(owner._changed_param())

    def refuse_replaced(self, owner: Owner) -> None:
        owner._look_again()

    def other_values(
        self, owner: Owner, wrappers: Sequence[_schuss.Core], job: _schuss.Job
    ) -> contextlib.AbstractContextManager[None]:
        return _schuss.OtherValues(owner, wrappers, job)

    def changes(
        self,
        attributes: Sequence[Change] = (),
        *,
        copies: Sequence[Copy] = (),
        fills: Sequence[tuple[Any, float]] = (),
        jobs: Sequence[Any] = (),
    ) -> _schuss.Changes:
        laid_out = [(target, np.asarray(source, order=checks.order(target))) for target, source in copies]
        return _schuss.Changes(attributes, copies=laid_out, fills=fills, jobs=jobs)

    job = staticmethod(tools.job)


HOST = Host()
#: The backend of the optimizers over NumPy arrays that are being made.
NEW: contextvars.ContextVar[Backend] = contextvars.ContextVar("NEW", default=HOST)
