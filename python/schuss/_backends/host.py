"""The backend for NumPy arrays: it forwards to the extension module. It knows no optimizer class."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, formats, layout, trees
from schuss._backends.protocol import Owner


class Host:
    """The backend for NumPy arrays; it has no state, so all optimizers share one instance."""

    def check_format(self, state_format: formats.StateFormat) -> None:
        """Every format is supported."""

    def adapt(self, place: str, array: Any) -> Any:
        checks.check_written(place, array)
        return array

    def check_together(self, named: Sequence[tuple[str, Any]]) -> None:
        """Nothing to check: all arrays are in host memory."""

    def zeros(
        self, params: Sequence[Any], states: Sequence[Sequence[formats.State]], state_format: formats.StateFormat
    ) -> list[list[np.ndarray]]:
        return layout.zeros(params, states, state_format)

    def new_gradient(self, param: Any) -> np.ndarray:
        return np.zeros(param.shape, checks.compute_dtype(param.dtype), checks.order(param))

    def check_zeroable(self, place: str, gradient: Any) -> None:
        checks.check_zeroable(place, gradient)

    def check_picklable(self) -> None:
        """Optimizers over NumPy arrays always can be pickled."""

    def step(self, owner: Owner, grads: Any = None, *, grad_scale: float = 1.0, zero_grads: bool = False) -> bool:
        return _schuss.Core.step(owner, grads, grad_scale=grad_scale, zero_grads=zero_grads)

    def add_group(
        self,
        owner: Owner,
        rules: Sequence[tuple[str, np.ndarray]],
        rule_of: Sequence[int],
        matrices: Sequence[layout.Matrix | None],
        first: int,
    ) -> None:
        kept, mine = owner._state_format, range(first, first + len(rule_of))
        states = [formats.for_kernels(kept, owner._rule_states[i], owner._states[i]) for i in mine]
        params, root = [owner._params[i] for i in mine], trees.in_order(owner._root())
        owner._add_group(rules, rule_of, params, states, matrices, root, kept.small, kept.master, owner._shared_values)

    def configure(self, owner: Owner, max_grad_norm: float | None, nonfinite: str) -> None:
        owner._configure(max_grad_norm, nonfinite)

    def grad_norm(self, owner: Owner) -> float | None:
        norm: float | None = _schuss.Core.grad_norm.__get__(owner)
        return norm

    def exclusive(
        self, owner: Owner, *others: _schuss.Core, nobody: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        return _schuss.ExclusiveLock(owner, *others, nobody=nobody)

    def check_idle(self, owner: Owner) -> None:
        _schuss.Core._check_idle(owner)

    def counters(self, owner: Owner) -> tuple[int, int, list[int]]:
        return owner._counters()

    def set_counters(self, owner: Owner, steps: int, skipped: int, groups: Sequence[int]) -> None:
        owner._set_counters(steps, skipped, groups)

    def refuse_changed(self, owner: Owner) -> None:
        owner._refuse_changed(owner._changed_param())

    def saved_params(self, owner: Owner) -> contextlib.AbstractContextManager[None]:
        return _schuss.SavedParams(owner)


HOST = Host()
