"""Shared by initializers: argument checks, and filling an array from a generator in chunks. It knows no initializer."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from schuss._core.hyperparameters import Layout as Layout
from schuss._core.hyperparameters import check_layout

Shape = int | tuple[int, ...]
Seed = int | np.random.Generator | np.random.BitGenerator | np.random.SeedSequence | None

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
_CHUNK = 1 << 16  # values drawn at a time: a large float32 array needs no float64 copy of its size


def as_shape(shape: Any) -> tuple[int, ...]:
    """The shape as a tuple."""
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    try:
        result = tuple(operator.index(size) for size in sizes)
    except TypeError:
        raise TypeError(f"shape must be a tuple of whole numbers >= 0, got {shape!r}") from None
    if any(size < 0 for size in result):
        raise ValueError(f"shape must be a tuple of whole numbers >= 0, got {shape!r}")
    return result


def fans(sizes: tuple[int, ...], layout: Any) -> tuple[int, int]:
    """Fan-in and fan-out; at least 1, even if a dimension is 0 and nothing is drawn."""
    layout = check_layout("layout", layout)
    if len(sizes) < 2:
        raise ValueError(f"shape must have at least two dimensions, inputs and outputs, got {sizes!r}")
    if layout == "in_out":
        field, inputs, outputs = math.prod(sizes[:-2]), sizes[-2], sizes[-1]
    else:
        field, inputs, outputs = math.prod(sizes[2:]), sizes[1], sizes[0]
    return max(field * inputs, 1), max(field * outputs, 1)


def generator(rng: Any) -> np.random.Generator:
    """The random generator for an `rng` argument."""
    if isinstance(rng, np.random.Generator):
        return rng
    seed = int(rng) if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) else None
    if rng is not None and seed is None and not isinstance(rng, (np.random.BitGenerator, np.random.SeedSequence)):
        raise TypeError(f"rng must be a seed (a whole number >= 0) or a numpy.random.Generator, got {rng!r}")
    if seed is not None and seed < 0:
        raise ValueError(f"rng must be a seed (a whole number >= 0) or a numpy.random.Generator, got {rng!r}")
    return np.random.default_rng(rng)


def as_target(sizes: tuple[int, ...], dtype: Any, out: Any) -> np.ndarray:
    """The array to fill: `out`, checked, or a new one."""
    if out is None:
        try:
            known = dtype is not None and np.dtype(dtype) in _DTYPES
        except TypeError:
            known = False
        if not known:
            raise TypeError(f"dtype must be float32 or float64, got {dtype!r}")
        return np.empty(sizes, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.dtype not in _DTYPES:
        raise TypeError(f"out must have dtype float32 or float64, got {out.dtype}")
    if out.shape != sizes:
        raise ValueError(f"out must have the shape {sizes}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; pass a writable array")
    return out


def fill(
    sizes: tuple[int, ...],
    draw: Callable[[np.random.Generator, int], np.ndarray],
    rng: Any,
    dtype: npt.DTypeLike,
    out: Any,
) -> np.ndarray:
    """The array, filled in C order with values from `draw(generator, count)`; a failed call leaves `out` as it was."""
    source, target = generator(rng), as_target(sizes, dtype, out)
    values = target if out is None else np.empty(sizes, target.dtype)
    flat = values.reshape(-1)
    for start in range(0, values.size, _CHUNK):
        count = min(_CHUNK, values.size - start)
        flat[start : start + count] = draw(source, count)
    if out is not None:
        target[...] = values
    return target
