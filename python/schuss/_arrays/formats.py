"""State formats: the dtype that states are stored in, and master copies of 16-bit parameters.

An int8 state is its quantized values, followed by one float32 scale for each block of 256 in memory order. Rounding and
quantization are done by the kernels. Nothing here knows an optimizer or its options.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from schuss._arrays import checks

#: Elements that share a scale: a quantization block.
_BLOCK = 256
_ALIGN = 64


#: "own" is for what no kernel knows.
Scope = Literal["element", "row", "col", "array", "all", "own"]


class State(NamedTuple):
    """A state of a rule: one value for each element, row, column or array."""

    name: str
    scope: Scope
    #: Whether values may be negative.
    signed: bool
    #: Whether it is never quantized.
    exact: bool = False
    #: Its initial value: a number, the name of a hyperparameter, or "p" for a copy of the parameter.
    initial: float | str = 0.0
    #: Its shape, if rows and columns are not those of the last two axes.
    own_shape: tuple[int, ...] | None = None

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The state's shape for a parameter of this shape; the last two axes are rows and columns."""
        if self.own_shape is not None:
            return self.own_shape
        if self.scope == "row":
            return (*shape[:-1], 1)
        if self.scope == "col":
            return (*shape[:-2], 1, shape[-1])
        return shape if self.scope == "element" else ()

    def dtype(self, param: Any) -> np.dtype[Any]:
        """The state's dtype if not quantized: the compute dtype, or float64 if it has one value for each array."""
        return np.dtype(np.float64) if self.scope == "array" else checks.compute_dtype(param.dtype)


_MASTER = State("master", "element", True)


class StateFormat(NamedTuple):
    """How an optimizer stores its state."""

    #: None for the compute dtype.
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
        """The seed of stochastic rounding in the kernels, or None for rounding to nearest."""
        return self.seed if self.small is not None and self.rounding == "stochastic" else None

    def keeps_copy(self, param: Any) -> bool:
        """Whether a parameter has a master copy: one of 16 bits has."""
        return self.master and _is_half(param)

    def stored(self, states: Sequence[State], param: Any) -> list[tuple[State, str | None]]:
        """A parameter's states with their storage dtypes; only states with a value for each element are quantized."""
        stored = [(state, self.dtype if state.scope == "element" and not state.exact else None) for state in states]
        return [*stored, (_MASTER, None)] if self.keeps_copy(param) else stored

    def names(self, states: Sequence[State], param: Any) -> list[str]:
        """The names of the arrays that store a rule's states of a parameter."""
        return [
            name
            for state, dtype in self.stored(states, param)
            for name in ([state.name, f"{state.name}_scale"] if dtype == "int8" else [state.name])
        ]

    def as_dict(self) -> dict[str, Any]:
        """The constructor options for this format; empty for the plain one."""
        names = ("state_dtype", "state_rounding", "state_seed", "master_weights")
        return {} if self.plain else dict(zip(names, self, strict=True))


def _is_half(param: Any) -> bool:
    return bool(param.dtype.itemsize == 2)


def check_params(state_format: StateFormat, named: Sequence[tuple[str, np.ndarray]]) -> None:
    """Raises unless the states of these parameters, all of an optimizer, can be stored in this format."""
    for place, param in named:
        if state_format.dtype == "float32" and param.dtype == np.float64:
            raise TypeError(
                f"{place} is float64, and its state too; leave out state_dtype, or convert the parameter to float32"
            )
    if state_format.master and named and not any(_is_half(param) for _, param in named):
        place, param = named[0]
        raise TypeError(
            f"master_weights=True is for float16 and bfloat16, which no parameter has ({place} is {param.dtype}); "
            "leave it out"
        )


def bfloat16() -> np.dtype[Any]:
    """The bfloat16 dtype of ml_dtypes, registered with the kernels."""
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError('state_dtype="bfloat16" needs the package ml_dtypes: pip install ml_dtypes') from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    checks.known_dtype(dtype)
    return dtype


def scale_count(elements: int) -> int:
    """The number of scales of an int8 state."""
    return -(-elements // _BLOCK)


def state_bytes(state: State, dtype: str | None, param: np.ndarray) -> int:
    """The size in bytes of one state of a parameter."""
    size = math.prod(state.shape(param.shape))
    if dtype == "int8":
        return -(-size // _ALIGN) * _ALIGN + 4 * scale_count(size)
    return size * (2 if dtype == "bfloat16" else state.dtype(param).itemsize)


def views(memory: np.ndarray, state: State, dtype: str | None, param: np.ndarray) -> list[np.ndarray]:
    """Views of a state's memory as its array, or quantized values and scales, in the parameter's memory order."""
    shape = state.shape(param.shape)
    if dtype != "int8":
        stored = bfloat16() if dtype == "bfloat16" else state.dtype(param)
        return [memory.view(stored).reshape(shape, order=checks.order(param))]
    size = math.prod(shape)
    codes = memory[:size].view(np.int8 if state.signed else np.uint8)
    scales = memory[-(-size // _ALIGN) * _ALIGN :].view(np.float32)
    return [codes.reshape(shape, order=checks.order(param)), scales]


def for_kernels(
    state_format: StateFormat, states: Sequence[State], arrays: Sequence[np.ndarray], scratch: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """State arrays as the extension module takes them: scratch before the master copy, int8 as one float32 array."""
    rest = iter(arrays)
    # Without the master copy: it is what is left over.
    stored = state_format._replace(master=False).stored(states, None)
    own = [_run(next(rest), next(rest)) if dtype == "int8" else next(rest) for _, dtype in stored]
    known = [array for state, array in zip(states, own, strict=True) if state.scope != "own"]
    return [*known, *scratch, *rest]


def _run(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    count = (-(-codes.size // _ALIGN) * _ALIGN) // 4 + scales.size
    if count == 0:
        return np.zeros(0, np.float32)
    block = codes
    while isinstance(block.base, np.ndarray):
        block = block.base
    at = codes.ctypes.data - block.ctypes.data
    return block[at : at + 4 * count].view(np.float32)
