"""Where state arrays lie: one block of memory a group, laid out for the caches.

All arrays of one state lie together, in the order of the parameters: for a thousand small arrays that saves a step a
quarter in cache and page misses. Large arrays start 1, 2, ... KiB behind their parameter modulo the page size: a CPU
takes a load for dependent on an earlier store when both have the same address modulo 4 KiB, and NumPy puts all large
arrays at the same one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schuss._arrays import formats

_LINE, _PAGE = 64, 4096
_LARGE = 16 * _PAGE
_STAGGER = 1024


def zeros(params: Sequence[np.ndarray], names: Sequence[str], kept: formats.StateFormat) -> list[list[np.ndarray]]:
    """The state arrays of each parameter, of zeros and in its memory order; a master copy has its numbers."""
    kinds = [(name, kept.dtype) for name in names] + [("master", None)] * kept.master
    sizes = [[formats.state_bytes(kind, param) for param in params] for _, kind in kinds]
    room = sum(size + (_PAGE if size >= _LARGE else _LINE) for own in sizes for size in own)
    # Through a memoryview, so that nobody reaches the array that owns the memory, as base of a state, and resizes it.
    block = np.frombuffer(memoryview(np.zeros(room + _LINE, np.uint8)), np.uint8)  # type: ignore[arg-type]
    base = block.ctypes.data
    states: list[list[np.ndarray]] = [[] for _ in params]
    at = 0
    for k, (name, kind) in enumerate(kinds):
        for own, param, size in zip(states, params, sizes[k], strict=True):
            if size >= _LARGE:
                wanted = param.ctypes.data // _LINE * _LINE + _STAGGER * (k + 1)
                at += (wanted - base - at) % _PAGE
            else:
                at += -(base + at) % _LINE
            own += formats.views(block[at : at + size], kind, name, param)
            at += size
    if kept.master:
        for own, param in zip(states, params, strict=True):
            own[-1][...] = param
    return states
