"""What is done to arrays beside optimizing them, on the same kernels: the extension module's tools, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schuss import _schuss


def transform(
    tool: str,
    arrays: Sequence[Any],
    others: Sequence[Any] = (),
    *,
    factor: float = 1.0,
    bound: float = 0.0,
    center: bool = False,
    copy: bool = False,
) -> None:
    """Runs a tool in place over arrays, which must have been checked.

    `others` stand in the gradients' places; `center` takes the means of their rows off them, `copy` copies the results
    into them.
    """
    if not arrays:
        return
    if not isinstance(arrays[0], np.ndarray):
        from schuss._backends import cuda_arrays

        cuda_arrays.transform(tool, arrays, others, factor=factor, bound=bound, copy=copy)
        return
    # As the extension module reads a group's values: no schedule, learning rate, decay or sign; then the tool's own.
    values = np.array([0.0] * 6 + [factor, bound])
    # Gradients must be of NumPy's very class; a memory map's plain view is the same memory.
    _schuss.update(tool, values, 1, arrays, [np.asarray(other) for other in others], [], center, copy)
