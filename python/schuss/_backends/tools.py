"""What is done to arrays beside optimizing them, on the same kernels: the extension module's tools, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays.layout import Matrix


def run(
    tool: str,
    arrays: Sequence[Any],
    values: Sequence[float] = (),
    *,
    program: str = "step",
    grads: Sequence[Any] = (),
    states: Sequence[Sequence[Any]] = (),
    matrices: Sequence[Matrix] = (),
) -> None:
    """Runs a tool in place over arrays of NumPy or of a GPU, which must have been checked; `values` are its own."""
    if not arrays:
        return
    if not isinstance(arrays[0], np.ndarray):
        from schuss._backends import cuda_arrays

        cuda_arrays.run(tool, arrays, values, program=program, grads=grads, states=states, matrices=matrices)
        return
    # As the extension module reads a group's values: no schedule, learning rate, decay or sign; then the tool's own.
    packed = np.array([0.0] * 6 + list(values))
    # Gradients must be of NumPy's very class; a memory map's plain view is the same memory.
    plain = [np.asarray(grad) for grad in grads]
    _schuss.run(tool, program, packed, 1, arrays, plain, states, matrices)
