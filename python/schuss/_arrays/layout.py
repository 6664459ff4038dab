"""Memory layout: arrays as matrices, and one cache-friendly block for all states of a group. It knows no optimizer.

All arrays of one state are adjacent, in the order of the parameters: with a thousand small arrays, this avoids cache
and page misses that cost a quarter of a step's time. Large arrays are offset by 1, 2, ... KiB from their parameter
modulo the page size: a CPU treats a load as dependent on an earlier store if both addresses are equal modulo 4 KiB (4K
aliasing), and NumPy allocates all large arrays at the same offset.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, formats

_LINE, _PAGE = 64, 4096
_LARGE = 16 * _PAGE
_STAGGER = 1024
#: A parameter's number, one of its states, and the dtype that it is stored in, if that is not the usual one.
_Placed = tuple[int, formats.State, str | None]


def zeros(
    params: Sequence[np.ndarray],
    states: Sequence[Sequence[formats.State]],
    state_format: formats.StateFormat,
    wholes: Sequence[np.ndarray] | None = None,
) -> list[list[np.ndarray]]:
    """Zeroed state arrays for each parameter, in its memory order; a master copy starts with its values.

    If `params` are parts of parameters, `wholes` are these: states with no value for each element are theirs.
    """
    stored = [state_format.stored(own, param) for own, param in zip(states, params, strict=True)]
    # The first state of every parameter, then the second of every parameter, and so on.
    rounds = [
        [(i, *own[k]) for i, own in enumerate(stored) if k < len(own)] for k in range(max(map(len, stored), default=0))
    ]

    def like(i: int, state: formats.State) -> np.ndarray:
        return params[i] if wholes is None or state.scope == "element" else wholes[i]

    follows = following(params) if state_format.plain and wholes is None else [False] * len(params)
    stretches = [
        (k, stretch, [formats.state_bytes(state, dtype, like(i, state)) for i, state, dtype in stretch])
        for k, own in enumerate(rounds)
        for stretch in _stretches(own, follows)
    ]
    bytes_needed = sum(sum(sizes) + (_PAGE if sum(sizes) >= _LARGE else _LINE) for *_, sizes in stretches)
    block = owned(np.zeros(bytes_needed + _LINE, np.uint8))
    base = block.ctypes.data
    made: list[list[np.ndarray]] = [[] for _ in params]
    at = 0
    for k, stretch, sizes in stretches:
        if sum(sizes) >= _LARGE:
            wanted = params[stretch[0][0]].ctypes.data // _LINE * _LINE + _STAGGER * (k + 1)
            at += (wanted - base - at) % _PAGE
        else:
            at += -(base + at) % _LINE
        for (i, state, dtype), size in zip(stretch, sizes, strict=True):
            made[i] += formats.views(block[at : at + size], state, dtype, like(i, state))
            at += size
    for arrays, param in zip(made, params, strict=True):
        if state_format.keeps_copy(param):
            arrays[-1][...] = param
    return made


def owned(array: np.ndarray) -> np.ndarray:
    """An array with the memory of a new one, which its user can neither resize nor release, through its base either."""
    return np.asarray(_schuss.OwnedMemory(array))


def following(arrays: Sequence[np.ndarray]) -> list[bool]:
    """For each array, whether it has the dtype of the one before it, and begins in memory where that one ends."""
    result, dtype, end = [], None, -1
    for array in arrays:
        start, stop = checks.byte_range(array)
        result.append(array.dtype == dtype and start == end)
        dtype, end = array.dtype, stop
    return result


def _stretches(own: Sequence[_Placed], follows: Sequence[bool]) -> Iterator[list[_Placed]]:
    """The states of one name, in pieces that lie in memory as their parameters do: one behind the other."""
    stretch: list[_Placed] = []
    for entry in own:
        i, state, _ = entry
        joins = stretch and follows[i] and stretch[-1][0] == i - 1 and state.scope == stretch[-1][1].scope == "element"
        if stretch and not joins:
            yield stretch
            stretch = []
        stretch.append(entry)
    if stretch:
        yield stretch


def buffers(params: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Zeroed gradients, in the dtype that updates are computed in; they follow each other as the parameters do."""
    result: list[np.ndarray] = []
    follows = [*following(params), False]
    first = 0
    for last in range(len(params)):
        if follows[last + 1]:
            continue
        own = params[first : last + 1]
        zeros = np.zeros(max(sum(param.size for param in own), 1), checks.compute_dtype(own[0].dtype))
        block = owned(zeros)
        at = 0
        for param in own:
            result.append(block[at : at + param.size].reshape(param.shape, order=checks.order(param)))
            at += param.size
        first = last + 1
    return result


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


def rows_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a state with one number for each slice along the first axis."""
    return (*shape[:1], *(1 for _ in shape[1:]))


def of_outputs(array: np.ndarray, layout: str) -> Matrix:
    """An array of two or more axes as one matrix with a row for each output, the last axis or in "out_in" the first."""
    first = layout == "out_in"
    outputs = array.shape[0 if first else -1]
    rest = math.prod(array.shape[1:] if first else array.shape[:-1])
    if (checks.order(array) == "C") == first:
        return 1, outputs, rest, False, 1
    return 1, rest, outputs, True, 1
