"""Memory layout: arrays as matrices, and one cache-friendly block for all states of a group. It knows no optimizer.

All arrays of one state are adjacent, in the order of the parameters: with a thousand small arrays, this avoids cache
and page misses that cost a quarter of a step's time. Large arrays are offset by 1, 2, ... KiB from their parameter
modulo the page size: a CPU treats a load as dependent on an earlier store if both addresses are equal modulo 4 KiB (4K
aliasing), and NumPy allocates all large arrays at the same offset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from schuss._arrays import checks, formats

_LINE, _PAGE = 64, 4096
_LARGE = 16 * _PAGE
_STAGGER = 1024


def zeros(
    params: Sequence[np.ndarray], states: Sequence[Sequence[formats.State]], state_format: formats.StateFormat
) -> list[list[np.ndarray]]:
    """Zeroed state arrays for each parameter, in its memory order; a master copy starts with its values."""
    stored = [state_format.stored(own) for own in states]
    # The first state of every parameter, then the second of every parameter, and so on.
    rounds = [
        [(i, *own[k]) for i, own in enumerate(stored) if k < len(own)] for k in range(max(map(len, stored), default=0))
    ]
    sizes = [[formats.state_bytes(state, dtype, params[i]) for i, state, dtype in own] for own in rounds]
    bytes_needed = sum(size + (_PAGE if size >= _LARGE else _LINE) for own in sizes for size in own)
    # Through a memoryview, so that nobody reaches the array that owns the memory, as base of a state, and resizes it.
    block = np.frombuffer(memoryview(np.zeros(bytes_needed + _LINE, np.uint8)), np.uint8)  # type: ignore[arg-type]
    base = block.ctypes.data
    made: list[list[np.ndarray]] = [[] for _ in params]
    at = 0
    for k, own in enumerate(rounds):
        for (i, state, dtype), size in zip(own, sizes[k], strict=True):
            param = params[i]
            if size >= _LARGE:
                wanted = param.ctypes.data // _LINE * _LINE + _STAGGER * (k + 1)
                at += (wanted - base - at) % _PAGE
            else:
                at += -(base + at) % _LINE
            made[i] += formats.views(block[at : at + size], state, dtype, param)
            at += size
    if state_format.master:
        for arrays, param in zip(made, params, strict=True):
            arrays[-1][...] = param
    return made


#: Batch, rows and columns in memory order, whether rows of the array are columns there, and how many matrices are
#: interleaved.
Matrix = tuple[int, int, int, bool, int]


def last_axes(array: np.ndarray) -> Matrix:
    """An array of two or more axes as the kernels see it: the last two are a matrix, the others a batch."""
    *leading, rows, cols = array.shape
    if checks.order(array) == "C":
        return math.prod(leading), rows, cols, False, 1
    count = math.prod(leading)
    # An empty batch still counts as one interleaved matrix.
    return 1, cols, rows * count, True, max(count, 1)


def of_outputs(array: np.ndarray, layout: str) -> Matrix:
    """An array of two or more axes as one matrix with a row for each output, the last axis or in "out_in" the first."""
    first = layout == "out_in"
    outputs = array.shape[0 if first else -1]
    rest = math.prod(array.shape[1:] if first else array.shape[:-1])
    if (checks.order(array) == "C") == first:
        return 1, outputs, rest, False, 1
    return 1, rest, outputs, True, 1
