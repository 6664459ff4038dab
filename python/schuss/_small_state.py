"""State that takes less memory, and master copies: the options and the arrays.

Eight-bit states are codes in a block of memory, followed by a float32 scale for each 256 of them in memory order. What
rounds and what the codes mean is in the kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from schuss import _arrays, _hyper

_CODED = 256
_ALIGN = 64
_dtype = _hyper.choice("float32", "bfloat16", "int8")
_rounding = _hyper.choice("stochastic", "nearest")

#: The constructor's keywords that are options of this kind, with their defaults.
DEFAULTS: dict[str, Any] = {
    "state_dtype": None,
    "state_rounding": "stochastic",
    "state_seed": 0,
    "master_weights": False,
}


class Keeping(NamedTuple):
    """What an optimizer keeps its state in."""

    #: "bfloat16" or "int8"; None for what the update is computed in.
    dtype: str | None
    rounding: str
    seed: int
    master: bool

    @property
    def plain(self) -> bool:
        """Whether the state is kept as ever."""
        return self.small is None and not self.master

    @property
    def small(self) -> str | None:
        """The dtype, where it is smaller than what the update is computed in."""
        return None if self.dtype == "float32" else self.dtype

    @property
    def noise(self) -> int | None:
        """The seed of the kernels' stochastic rounding, or None where there is none."""
        return self.seed if self.small is not None and self.rounding == "stochastic" else None

    def names(self, states: Sequence[str]) -> list[str]:
        """The names of the arrays that a rule's states are kept in."""
        scaled = self.dtype == "int8"
        kept = [array for name in states for array in ([name, f"{name}_scale"] if scaled else [name])]
        return [*kept, "master"] if self.master else kept

    def as_dict(self) -> dict[str, Any]:
        """What of it differs from the defaults, under the constructor's names."""
        given = dict(zip(DEFAULTS, (self.dtype, self.rounding, self.seed, self.master), strict=True))
        return {} if self.plain else given


def check(given: Mapping[str, Any]) -> Keeping:
    """The constructor's options, checked as far as that goes without arrays."""
    dtype = given["state_dtype"]
    if dtype is not None:
        dtype = _dtype("state_dtype", dtype)
    if dtype == "bfloat16":
        bfloat16()
    return Keeping(
        dtype,
        _rounding("state_rounding", given["state_rounding"]),
        seed("state_seed", given["state_seed"]),
        _hyper.flag("master_weights", given["master_weights"]),
    )


def seed(place: str, value: Any) -> int:
    """The value as a seed, which it must be."""
    wrong = f"{place} must be a whole number >= 0 and < 2**64, got {value!r}"
    result = _hyper.whole(value)
    if result is None:
        raise TypeError(wrong)
    if not 0 <= result < 2**64:
        raise ValueError(wrong)
    return result


def check_params(keeping: Keeping, named: Sequence[tuple[str, np.ndarray]]) -> None:
    """Raises unless parameters can have their state kept like this."""
    for place, param in named:
        if keeping.dtype == "float32" and param.dtype == np.float64:
            raise TypeError(
                f"{place} is float64, and its state too; leave out state_dtype, or convert the parameter to float32"
            )
        if keeping.master and param.dtype.itemsize != 2:
            raise TypeError(
                f"{place} is {param.dtype}, which needs no master copy; master_weights=True is for float16 and bfloat16"
            )


def bfloat16() -> np.dtype[Any]:
    """The dtype, known to the kernels."""
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError('state_dtype="bfloat16" needs the package ml_dtypes: pip install ml_dtypes') from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    _arrays.known_dtype(dtype)
    return dtype


def state_bytes(dtype: str | None, param: np.ndarray) -> int:
    """What one state of a parameter takes."""
    if dtype == "int8":
        return -(-param.size // _ALIGN) * _ALIGN + 4 * -(-param.size // _CODED)
    return param.size * (2 if dtype == "bfloat16" else _arrays.compute_dtype(param.dtype).itemsize)


def views(memory: np.ndarray, dtype: str | None, name: str, param: np.ndarray) -> list[np.ndarray]:
    """The arrays of one state in the memory that is its own."""
    if dtype != "int8":
        kept = bfloat16() if dtype == "bfloat16" else _arrays.compute_dtype(param.dtype)
        return [memory.view(kept).reshape(param.shape, order=_arrays.order(param))]
    codes = memory[: param.size].view(np.int8 if signed(name) else np.uint8)
    scales = memory[-(-param.size // _ALIGN) * _ALIGN :].view(np.float32)
    return [codes.reshape(param.shape, order=_arrays.order(param)), scales]


def for_kernels(keeping: Keeping, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A parameter's state arrays as the extension module takes them: codes and scales as one run of float32."""
    if keeping.dtype != "int8":
        return list(arrays)
    own, master = (arrays[:-1], arrays[-1:]) if keeping.master else (arrays, [])
    return [*map(_run, own[::2], own[1::2]), *master]


def _run(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    count = (-(-codes.size // _ALIGN) * _ALIGN) // 4 + scales.size
    if count == 0:
        return np.zeros(0, np.float32)
    block = codes
    while isinstance(block.base, np.ndarray):
        block = block.base
    at = codes.ctypes.data - block.ctypes.data
    return block[at : at + 4 * count].view(np.float32)


def signed(name: str) -> bool:
    """Whether a state of this name may be negative; the kernels tell it by the same letters."""
    return not name.startswith(("v", "s"))
