"""State formats: the dtype that states are stored in, and master copies of 16-bit parameters.

An 8-bit state is a block of quantized values, followed by one float32 scale for each 256 of them in memory order. How
values are rounded and what a code stands for is in the kernels. Nothing here knows an optimizer or its options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from schuss._arrays import checks

#: Elements that share a scale: a quantization block.
_BLOCK = 256
_ALIGN = 64


class StateFormat(NamedTuple):
    """How an optimizer stores its state."""

    #: None for the dtype that the update is computed in.
    dtype: str | None = None
    rounding: str = "stochastic"
    seed: int = 0
    master: bool = False

    @property
    def plain(self) -> bool:
        """Whether states have the compute dtype, and there are no master copies."""
        return self.small is None and not self.master

    @property
    def small(self) -> str | None:
        """The dtype, if it is smaller than the compute dtype."""
        return None if self.dtype == "float32" else self.dtype

    @property
    def rounding_seed(self) -> int | None:
        """The seed of the kernels' stochastic rounding, or None without it."""
        return self.seed if self.small is not None and self.rounding == "stochastic" else None

    def names(self, states: Sequence[str]) -> list[str]:
        """The names of the arrays that store a rule's states."""
        scaled = self.dtype == "int8"
        kept = [array for name in states for array in ([name, f"{name}_scale"] if scaled else [name])]
        return [*kept, "master"] if self.master else kept

    def as_dict(self) -> dict[str, Any]:
        """The constructor's options that ask for this format; empty for the plain one."""
        names = ("state_dtype", "state_rounding", "state_seed", "master_weights")
        return {} if self.plain else dict(zip(names, self, strict=True))


def check_params(state_format: StateFormat, named: Sequence[tuple[str, np.ndarray]]) -> None:
    """Raises unless the states of these parameters can be stored in this format."""
    for place, param in named:
        if state_format.dtype == "float32" and param.dtype == np.float64:
            raise TypeError(
                f"{place} is float64, and its state too; leave out state_dtype, or convert the parameter to float32"
            )
        if state_format.master and param.dtype.itemsize != 2:
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
    checks.known_dtype(dtype)
    return dtype


def state_bytes(dtype: str | None, param: np.ndarray) -> int:
    """Bytes of one state of a parameter."""
    if dtype == "int8":
        return -(-param.size // _ALIGN) * _ALIGN + 4 * -(-param.size // _BLOCK)
    return param.size * (2 if dtype == "bfloat16" else checks.compute_dtype(param.dtype).itemsize)


def views(memory: np.ndarray, dtype: str | None, name: str, param: np.ndarray) -> list[np.ndarray]:
    """The arrays of one state in the memory that is its own."""
    if dtype != "int8":
        kept = bfloat16() if dtype == "bfloat16" else checks.compute_dtype(param.dtype)
        return [memory.view(kept).reshape(param.shape, order=checks.order(param))]
    codes = memory[: param.size].view(np.int8 if signed(name) else np.uint8)
    scales = memory[-(-param.size // _ALIGN) * _ALIGN :].view(np.float32)
    return [codes.reshape(param.shape, order=checks.order(param)), scales]


def for_kernels(state_format: StateFormat, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A parameter's state arrays as the extension module takes them: codes and scales as one run of float32."""
    if state_format.dtype != "int8":
        return list(arrays)
    own, master = (arrays[:-1], arrays[-1:]) if state_format.master else (arrays, [])
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
