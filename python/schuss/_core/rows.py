"""Gradients of some rows of an array, as embedding tables have them: pairs of indices and values, read and checked.

No subclass is known here, and no rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from schuss._arrays import checks, trees
from schuss._backends.host import HOST
from schuss._core.kind import Kind

if TYPE_CHECKING:
    from schuss._core.optimizer import Optimizer

#: The number of an array, indices of its rows, and a gradient for each.
Rows = tuple[int, np.ndarray, np.ndarray]


def step(optimizer: Optimizer, grads: Any, grad_scale: Any, partial: Any) -> bool:
    """See :meth:`schuss.Optimizer.step_rows`."""
    if optimizer._stepped is not optimizer:
        name = type(optimizer).__name__
        raise TypeError(f"{name} has no step_rows; call that of the optimizer that it wraps, .optimizer.step_rows")
    if optimizer._backend is not HOST:
        raise TypeError("step_rows works on NumPy arrays only; params has arrays on a GPU, whose gradients are dense")
    scale, _, partial = optimizer._step_options(grad_scale, None, partial)
    if grads is None or optimizer._grouped:
        optimizer._explain_structure(grads, partial)
    whole: dict[int, Any] = {}
    rows: list[Rows] = []
    for i, place, leaf in trees.leaves(optimizer._root(), grads, "grads", "params", partial=partial):
        whole[i] = leaf
        if isinstance(leaf, (tuple, list)):
            whole[i] = None
            rows.append(_read(optimizer, i, place, leaf))
    if not optimizer._by_rows:  # also without such a pair: its step may take more than gradients
        raise TypeError(f"{optimizer._name()} cannot step over rows; {_others()}")
    return optimizer._step_rows(trees.build(optimizer._root(), whole.__getitem__), rows, scale, partial)


def _read(optimizer: Optimizer, i: int, place: str, pair: Any) -> Rows:
    """The indices and values of an array's rows."""
    group, suffix = optimizer._suffixes[i]
    param, param_place = optimizer._params[i], optimizer._place("params", group, suffix)
    initial = optimizer._groups[group].initial_hypers
    if not optimizer._takes_rows(initial, param):
        name = optimizer._with_obstacles(initial, lambda hypers: optimizer._takes_rows(hypers, param))
        if optimizer._takes_rows(initial, np.empty((1, 1))):
            raise TypeError(
                f"{name} cannot step over rows of {param_place}, which has shape {param.shape}: it has a state for "
                "each row of arrays with two or more axes only; pass a gradient for it"
            )
        raise TypeError(f"{name} cannot step over rows of {param_place}; {_others()}")
    if optimizer._state_format.dtype == "int8":
        raise TypeError('an int8 state has no rows: its blocks of 256 elements cross them; use state_dtype="bfloat16"')
    if len(pair) != 2:
        raise ValueError(f"{place} must be a pair of indices and values, or a gradient; it has {len(pair)} entries")
    for part, what in zip(pair, ("indices", "values"), strict=True):
        if part is None:
            raise TypeError(f"{place} has None for {what}; None in the place of the pair leaves {param_place} alone")
    if param.ndim == 0:
        raise ValueError(f"{param_place} has no axes, and so no rows; pass a gradient for it")
    if checks.order(param) != "C":
        raise ValueError(
            f"{param_place} is in Fortran order, in which rows are not contiguous; make it with order='C' for step_rows"
        )
    indices = _indices(f"{place}[0]", pair[0])
    if indices.dtype.kind == "u" and len(far := np.flatnonzero(indices > np.iinfo(np.int64).max)):
        optimizer._explain_index(i, int(far[0]), int(indices[far[0]]))
    indices = np.ascontiguousarray(indices, np.int64)
    return i, indices, checks.as_rows(f"{place}[1]", pair[1], param_place, param, len(indices))


def _indices(place: str, given: Any) -> np.ndarray:
    if checks.is_on_gpu(given):
        raise TypeError(f"{place} is on a GPU; copy the indices to the host")
    if isinstance(given, np.ma.MaskedArray):  # its filled(0) would be gradients of row 0
        raise TypeError(f"{place} is a masked array; pass {place}.compressed(), and the values of these indices alone")
    indices = np.asarray(given)
    if not indices.size and isinstance(given, (list, tuple)):  # which has no dtype
        indices = indices.astype(np.int64)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{place} has dtype {indices.dtype}; indices of rows are integers, such as np.int64")
    if indices.ndim != 1:
        raise ValueError(
            f"{place} has shape {indices.shape}; indices have one axis: pass {place}.reshape(-1), and the values with "
            "one row for each"
        )
    return indices


def _others() -> str:
    """The optimizers whose steps may be over rows, in words."""
    kinds: list[type[Kind]] = [Kind]
    for kind in kinds:
        kinds += kind.__subclasses__()
    names = {kind.__name__ for kind in kinds if kind._by_rows and kind.__module__.startswith("schuss.")}
    return f"those that can are {', '.join(sorted(names))}"
