"""Runs the kernels' tools, the array operations other than optimizer steps. It knows no optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays.layout import Matrix
from schuss._backends.protocol import packed as packed


def run(
    tool: str,
    arrays: Sequence[Any],
    values: Sequence[float] = (),
    *,
    grads: Sequence[Any] = (),
    states: Sequence[Sequence[Any]] = (),
    matrices: Sequence[Matrix] = (),
) -> None:
    """Runs a tool in place over NumPy or GPU arrays, which must have been checked; `values` are its arguments."""
    if not arrays:
        return
    if isinstance(arrays[0], np.ndarray):
        job(tool, arrays, values, grads=grads, states=states, matrices=matrices).run()
        return
    from schuss._backends import cuda_arrays

    function, arguments = cuda_arrays.job(tool, arrays, values, grads=grads, states=states, matrices=matrices)
    function(*arguments)


def job(
    tool: str,
    arrays: Sequence[Any],
    values: Sequence[float] = (),
    *,
    program: str = "step",
    grads: Sequence[Any] = (),
    states: Sequence[Sequence[Any]] = (),
    matrices: Sequence[Matrix] = (),
) -> _schuss.Job:
    """A tool over NumPy arrays, ready to run."""
    # Gradients must be plain ndarrays, not a subclass; a memory map is viewed as one, without a copy.
    plain = [np.asarray(grad) for grad in grads]
    return _schuss.Job(tool, program, [np.array(packed(values))], 1, arrays, plain, states, matrices)


def grouped(
    tool: str, arrays: Sequence[Any], values: Sequence[Sequence[float]], groups: Sequence[int], grads: Sequence[Any]
) -> _schuss.Job:
    """A tool over NumPy arrays in groups, ready to run: each group has its own arguments."""
    arguments, plain = [np.array(packed(own)) for own in values], [np.asarray(grad) for grad in grads]
    return _schuss.Job(tool, "step", arguments, 1, arrays, plain, (), (), groups=groups)
