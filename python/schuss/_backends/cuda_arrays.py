"""Arrays on a GPU: views of other libraries' memory, and the package's own. It knows no optimizer.

`cuda_interop` reads what other libraries say of their arrays. Both are imported, and CUDA libraries loaded, when the
first array on a GPU is passed in.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from schuss import _schuss
from schuss._arrays.formats import State
from schuss._arrays.layout import Matrix
from schuss._backends import nvrtc
from schuss._backends.protocol import packed

LEGACY = 1  # the legacy default stream in `__cuda_array_interface__`
_ALIGN = 256


@functools.cache
def prepare() -> None:
    """Checks for a CUDA build, the driver and NVRTC; raises `RuntimeError` that says what is missing."""
    if not hasattr(_schuss, "CudaWork"):
        raise RuntimeError("this build of schuss has no CUDA: build it with the feature cuda, which is the default")
    try:
        version = _schuss.cuda_driver()
    except RuntimeError as error:
        raise RuntimeError(f"{error}: arrays on a GPU need the NVIDIA driver on this machine") from None
    nvrtc.load(version // 1000, _schuss.cuda_least_arch())


def current_stream(framework: str, device: int) -> int:
    """A framework's current stream on a device."""
    if framework == "torch":
        return int(sys.modules["torch"].cuda.current_stream(device).cuda_stream) or LEGACY
    if framework == "cupy":
        cuda = sys.modules["cupy"].cuda
        with cuda.Device(device):  # each device has its own
            return int(cuda.get_current_stream().ptr) or LEGACY
    return LEGACY


def dtype_of(name: Any) -> np.dtype[Any]:
    """The dtype of this name; bfloat16, which NumPy does not have, is the package ml_dtypes'."""
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


class DeviceArray:
    """A contiguous array on a GPU: a view of another library's array, or the package's own memory.

    It has ``__cuda_array_interface__``, so ``cupy.asarray`` and ``torch.as_tensor`` convert it without copying;
    ``numpy()`` copies it to the host. `owner` keeps the memory alive: the other library's array or the package's block.
    """

    __slots__ = ("device", "dtype", "framework", "order", "owner", "pointer", "shape")

    order: Literal["C", "F"]

    def __init__(
        self,
        pointer: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        order: Literal["C", "F"],
        device: int,
        owner: Any,
        framework: str,
    ) -> None:
        self.pointer, self.shape, self.dtype, self.order = pointer, shape, dtype, order
        self.device, self.owner, self.framework = device, owner, framework

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    @property
    def flags(self) -> SimpleNamespace:
        """The flags of NumPy's arrays."""
        c = self.order == "C"
        return SimpleNamespace(c_contiguous=c, f_contiguous=not c, contiguous=True, writeable=True, aligned=True)

    @property
    def ctypes(self) -> SimpleNamespace:
        """Where the memory begins, as in this attribute of NumPy's arrays."""
        return SimpleNamespace(data=self.pointer)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None
        if self.order == "F":
            strides = tuple(self.itemsize * math.prod(self.shape[:k]) for k in range(self.ndim))
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": strides,
            "version": 3,
            "stream": self.stream(),
        }

    def stream(self) -> int:
        """The current stream of the library that it comes from."""
        return current_stream(self.framework, self.device)

    def numpy(self) -> np.ndarray:
        """A copy on the host; waits for the stream to finish."""
        host = np.empty(self.shape, self.dtype, self.order)
        _schuss.cuda_copy(self.device, host.ctypes.data, self.pointer, self.nbytes, self.stream(), True)
        return host

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        host = self.numpy()
        return host if dtype is None else host.astype(dtype, copy=False)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Sets all elements, ``array[...] = values``, from the host or the same device."""
        if key is not Ellipsis:
            raise TypeError("arrays on a GPU are set as a whole: array[...] = values")
        if isinstance(value, DeviceArray) and value.dtype != self.dtype:
            function, arguments = job("copy", [self], grads=[value])
            function(*arguments)
        elif isinstance(value, DeviceArray):
            _schuss.cuda_copy(*self.copy_arguments(value))
        else:
            host = np.asarray(value, self.dtype, order=self.order)
            _schuss.cuda_copy(self.device, self.pointer, host.ctypes.data, self.nbytes, self.stream(), True)

    def fill(self, value: float) -> None:
        """Sets all elements to a number."""
        if value == 0:
            _schuss.cuda_zero(self.device, self.pointer, self.nbytes, self.stream())
        else:
            self[...] = np.full(self.shape, value, self.dtype, self.order)

    def astype(self, dtype: Any) -> DeviceArray:
        """A copy on the device, in the same order."""
        (result,) = allocate([self], [np.dtype(dtype)])
        result[...] = self
        return result

    def copy(self) -> DeviceArray:
        """A copy on the device, in the same order."""
        return self.astype(self.dtype)

    def like(self, values: Any) -> DeviceArray:
        """A new array like this one with these values."""
        (result,) = allocate([self], [self.dtype])
        result[...] = values
        return result

    def copy_arguments(self, source: DeviceArray) -> tuple[int, int, int, int, int]:
        """The arguments with which `cuda_copy` copies an array of the same dtype here."""
        return self.device, self.pointer, source.pointer, self.nbytes, self.stream()

    def __reduce__(self) -> Any:
        raise TypeError("arrays on a GPU cannot be pickled or copied here; use schuss.save, or state_dict()")

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype.name}, device={self.device})"


def check_one_device(named: Sequence[tuple[str, DeviceArray]]) -> int:
    """The one device of all arrays; empty ones are assigned to it."""
    somewhere = [(place, array) for place, array in named if array.device >= 0]
    first, device = somewhere[0] if somewhere else ("", named[0][1])
    number = max(device.device, 0)
    for place, array in somewhere:
        if array.device != number:
            raise ValueError(
                f"{place} is on device {array.device}, but {first} is on device {number}; all arrays of an optimizer "
                "must lie on one device"
            )
    for _, array in named:
        array.device = number
    return number


def allocate(like: Sequence[DeviceArray], dtypes: Sequence[np.dtype[Any]]) -> list[DeviceArray]:
    """Arrays of zeros with the shapes and orders of `like`, consecutive in one block of memory."""
    sizes = [array.size * dtype.itemsize for array, dtype in zip(like, dtypes, strict=True)]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // _ALIGN) * _ALIGN)
    device = like[0].device if like else 0
    block = _schuss.CudaBlock(device, starts[-1], False)
    return [
        DeviceArray(block.pointer + start, array.shape, dtype, array.order, device, block, array.framework)
        for array, dtype, start in zip(like, dtypes, starts, strict=False)
    ]


def zeros(params: Sequence[DeviceArray], states: Sequence[Sequence[State]]) -> list[list[DeviceArray]]:
    """Arrays of zeros for the states of each parameter, in its memory order and consecutive in memory."""
    like = [
        DeviceArray(0, state.shape(param.shape), state.dtype(param), param.order, param.device, None, param.framework)
        for param, own in zip(params, states, strict=True)
        for state in own
    ]
    made = iter(allocate(like, [array.dtype for array in like]))
    return [[next(made) for _ in own] for own in states]


@functools.lru_cache(maxsize=16)
def _tool(device: int, tool: str, values: int, arrays: tuple[tuple[int, str, int, tuple[int, ...], Any], ...]) -> Any:
    work = _schuss.CudaWork(device)
    given = [(0, pointer, dtype, size, list(states), matrix) for pointer, dtype, size, states, matrix in arrays]
    work.add_group([(tool, values)], given)
    return work


def job(
    tool: str,
    arrays: Sequence[DeviceArray],
    values: Sequence[float] = (),
    *,
    program: str = "step",
    grads: Sequence[DeviceArray] = (),
    states: Sequence[Sequence[DeviceArray]] = (),
    matrices: Sequence[Matrix] = (),
) -> tuple[Any, tuple[Any, ...]]:
    """A native function and arguments that run a tool."""
    own = packed(values)
    given = tuple(
        (
            array.pointer,
            array.dtype.name,
            array.size,
            tuple(state.pointer for state in states[i]) if states else (),
            tuple(matrices[i]) if matrices else None,
        )
        for i, array in enumerate(arrays)
    )
    work = _tool(arrays[0].device, tool, len(own), given)
    others = list(grads or arrays)
    pointers, types = [other.pointer for other in others], [other.dtype.name for other in others]
    # In the stream of the library that made the arrays; the package's own memory has none.
    stream = next((array.stream() for array in (*others, *arrays) if array.framework), LEGACY)
    return work.step, (program, [own], [1], [], pointers, types, 1.0, None, False, False, False, stream)
