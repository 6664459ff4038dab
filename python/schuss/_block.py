"""Where state arrays lie: one block of memory a group, laid out for the caches.

All arrays of one state lie together, in the order of the parameters: for a thousand small arrays that saves a step a
quarter in cache and page misses. Large arrays start 1, 2, ... KiB behind their parameter modulo the page size: a CPU
takes a load for dependent on an earlier store when both have the same address modulo 4 KiB, and NumPy puts all large
arrays at the same one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schuss import _arrays

_LINE, _PAGE = 64, 4096
_LARGE = 16 * _PAGE
_STAGGER = 1024


def zeros(params: Sequence[np.ndarray], count: int) -> list[list[np.ndarray]]:
    """`count` arrays of zeros for each parameter, of its shape, memory order and compute dtype."""
    dtypes = [_arrays.compute_dtype(param.dtype) for param in params]
    sizes = [param.size * dtype.itemsize for param, dtype in zip(params, dtypes, strict=True)]
    room = sum(size + (_PAGE if size >= _LARGE else _LINE) for size in sizes)
    # Through a memoryview, so that nobody reaches the array that owns the memory, as base of a state, and resizes it.
    block = np.frombuffer(memoryview(np.zeros(count * room + _LINE, np.uint8)), np.uint8)  # type: ignore[arg-type]
    base = block.ctypes.data
    states: list[list[np.ndarray]] = [[] for _ in params]
    at = 0
    for k in range(count):
        for own, param, dtype, size in zip(states, params, dtypes, sizes, strict=True):
            if size >= _LARGE:
                wanted = param.ctypes.data // _LINE * _LINE + _STAGGER * (k + 1)
                at += (wanted - base - at) % _PAGE
            else:
                at += -(base + at) % _LINE
            own.append(block[at : at + size].view(dtype).reshape(param.shape, order=_arrays.order(param)))
            at += size
    return states
