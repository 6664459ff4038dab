"""Arrays on a GPU: reading those of CuPy, PyTorch and JAX, and allocating the package's own. It knows no optimizer.

This module is first used, and CUDA libraries are first loaded, when an array on a GPU is passed in.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import numpy as np

from schuss import _schuss
from schuss._arrays import checks
from schuss._arrays.formats import State
from schuss._arrays.layout import Matrix
from schuss._backends import nvrtc

LEGACY = 1  # the legacy default stream in `__cuda_array_interface__`
_TYPES = {"<f4": "float32", "<f8": "float64", "<f2": "float16"}
_DLPACK = {(2, 32): "float32", (2, 64): "float64", (2, 16): "float16", (4, 16): "bfloat16"}
_KINDS = "float32, float64, float16 or bfloat16"
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
    nvrtc.load(version // 1000)


class Seen(NamedTuple):
    """An array as another library describes it."""

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    order: Literal["C", "F"] | None  # None: not contiguous
    writable: bool
    stream: int  # its producer's stream
    framework: str


def see(place: str, array: Any) -> Seen:
    """Reads an array's description of itself; raises `TypeError` if the array cannot be used."""
    torch = sys.modules.get("torch")
    if isinstance(array, DeviceArray):
        return Seen(array.pointer, array.shape, array.dtype.name, array.order, True, array.stream(), array.framework)
    if torch is not None and isinstance(array, torch.Tensor):
        if array.layout is not torch.strided:
            raise TypeError(f"{place} is a sparse tensor; pass a dense one, for example {place}.to_dense()")
        kind, shape, stream = (
            str(array.dtype).removeprefix("torch."),
            tuple(array.shape),
            current_stream("torch", array.device.index),
        )
        return Seen(array.data_ptr(), shape, kind, _order(shape, array.stride()), True, stream, "torch")
    try:
        said = array.__cuda_array_interface__
    except Exception:  # JAX and CuPy have bfloat16, which the interface cannot express
        return _through_dlpack(place, array)
    if said.get("mask") is not None:
        raise TypeError(f"{place} is a masked array; pass its data")
    shape, named = tuple(said["shape"]), str(said["typestr"])
    dtype = getattr(array, "dtype", None)
    kind = "bfloat16" if str(dtype) == "bfloat16" else _TYPES.get(named, named)
    size = int(named[2:])
    steps = said.get("strides")
    strides = None if steps is None else tuple(step // size for step in steps)
    pointer, read_only = said["data"]
    framework = "cupy" if type(array).__module__.partition(".")[0] == "cupy" else ""
    return Seen(pointer, shape, kind, _order(shape, strides), not read_only, said.get("stream") or LEGACY, framework)


def _order(shape: Sequence[int], strides: Sequence[int] | None) -> Literal["C", "F"] | None:
    """The memory order of an array with these strides, in elements; C if both fit."""
    if strides is None or math.prod(shape) == 0:
        return "C"
    pairs = list(zip(shape, strides, strict=True))
    if _is_packed(reversed(pairs)):
        return "C"
    return "F" if _is_packed(pairs) else None


def _is_packed(pairs: Iterable[tuple[int, int]]) -> bool:
    """Whether axes of these lengths and strides, innermost first, are contiguous."""
    step = 1
    for n, stride in pairs:
        if n != 1 and stride != step:
            return False
        step *= n
    return True


class _Tensor(ctypes.Structure):
    """The first fields of DLPack's DLManagedTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


def _through_dlpack(place: str, array: Any) -> Seen:
    try:
        capsule = array.__dlpack__(stream=LEGACY)  # the producer makes that stream wait for it
    except Exception as error:
        raise TypeError(f"{place} is {_a(array)} that cannot be read: {error}") from error
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # The capsule is not consumed: the array owns the memory, and the capsule is freed when this returns.
    said = _Tensor.from_address(get(capsule, b"dltensor"))
    shape = tuple(said.shape[: said.ndim])
    strides = tuple(said.strides[: said.ndim]) if said.strides else None
    kind = _DLPACK.get((said.code, said.bits), f"of type code {said.code} with {said.bits} bits")
    return Seen((said.data or 0) + said.byte_offset, shape, kind, _order(shape, strides), True, LEGACY, "")


def current_stream(framework: str, device: int) -> int:
    """A framework's current stream."""
    if framework == "torch":
        return int(sys.modules["torch"].cuda.current_stream(device).cuda_stream) or LEGACY
    if framework == "cupy":
        return int(sys.modules["cupy"].cuda.get_current_stream().ptr) or LEGACY
    return LEGACY


def _a(thing: Any) -> str:
    return f"an object of type {type(thing).__name__}"


def dtype_of(name: Any) -> np.dtype[Any]:
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
        """As NumPy's."""
        c = self.order == "C"
        return SimpleNamespace(c_contiguous=c, f_contiguous=not c, contiguous=True, writeable=True, aligned=True)

    @property
    def ctypes(self) -> SimpleNamespace:
        """As NumPy's: where the memory begins."""
        return SimpleNamespace(data=self.pointer)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        code = {np.dtype(kind): code for code, kind in _TYPES.items()}.get(self.dtype, self.dtype.str)
        strides = None
        if self.order == "F":
            strides = tuple(self.itemsize * math.prod(self.shape[:k]) for k in range(self.ndim))
        data = (self.pointer, False)
        return {
            "shape": self.shape,
            "typestr": code,
            "data": data,
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
        _schuss.cuda_copy(self.device, host.ctypes.data, self.pointer, self.nbytes, self.stream())
        return host

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        host = self.numpy()
        return host if dtype is None else host.astype(dtype, copy=False)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Sets all elements, ``array[...] = values``, from the host or the same device."""
        if key is not Ellipsis:
            raise TypeError("arrays on a GPU are set as a whole: array[...] = values")
        if isinstance(value, DeviceArray) and value.dtype != self.dtype:
            run("copy", [self], grads=[value])
        elif isinstance(value, DeviceArray):
            _schuss.cuda_copy(*self.copy_arguments(value))
        else:
            host = np.asarray(value, self.dtype, order=self.order)
            _schuss.cuda_copy(self.device, self.pointer, host.ctypes.data, self.nbytes, self.stream())

    def fill(self, value: float) -> None:
        """Sets all elements to a number."""
        if value == 0:
            _schuss.cuda_fill(self.device, self.pointer, 0, self.nbytes, self.stream())
        else:
            self[...] = np.full(self.shape, value, self.dtype, self.order)

    def astype(self, dtype: Any, order: Literal["C", "F"] | None = None) -> DeviceArray:
        """A copy on the device, in the same order."""
        (result,) = allocate([self], [np.dtype(dtype)])
        result[...] = self
        return result

    def copy(self, order: Literal["C", "F"] | None = None) -> DeviceArray:
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


def adapt(place: str, array: Any) -> DeviceArray:
    """Another library's array as a view to update in place; raises if that is impossible."""
    if array is None:
        raise TypeError(f"{place} is None; every entry must be an array")
    if not checks.is_on_gpu(array):
        raise ValueError(
            f"{place} is in host memory, but others are on a GPU; all arrays of an optimizer must lie on one device"
        )
    seen = see(place, array)
    if seen.dtype not in _DLPACK.values():
        raise TypeError(f"{place} has dtype {seen.dtype}; it must be {_KINDS}")
    if not seen.writable:
        raise ValueError(
            f"{place} is read-only; pass a writable array, or copy it once and use that array in the model too"
        )
    if seen.order is None:
        raise ValueError(f"{place} is not contiguous; make it so once and use that array in the model too")
    dtype = dtype_of(seen.dtype)
    if seen.pointer % dtype.itemsize:
        raise ValueError(f"{place} is not aligned to its {dtype.itemsize}-byte elements")
    return DeviceArray(seen.pointer, seen.shape, dtype, seen.order, _device_of(place, seen), array, seen.framework)


def _device_of(place: str, seen: Seen) -> int:
    if math.prod(seen.shape) == 0:
        return -1  # an empty array is on no device
    device = _schuss.cuda_device_of(seen.pointer)
    if device is None:
        raise ValueError(f"{place} says that it is on a GPU, but the driver knows nothing of its memory")
    return device


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


def run(
    tool: str,
    arrays: Sequence[DeviceArray],
    values: Sequence[float] = (),
    *,
    program: str = "step",
    grads: Sequence[DeviceArray] = (),
    states: Sequence[Sequence[DeviceArray]] = (),
    matrices: Sequence[Matrix] = (),
) -> None:
    """Runs a tool in place over arrays on one device, as `schuss._backends.tools.run` does on the host."""
    function, arguments = job(tool, arrays, values, program=program, grads=grads, states=states, matrices=matrices)
    function(*arguments)


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
    packed = [0.0] * 6 + list(values)
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
    work = _tool(arrays[0].device, tool, len(packed), given)
    others = list(grads or arrays)
    pointers, types = [other.pointer for other in others], [other.dtype.name for other in others]
    # In the stream of the library that made the arrays; the package's own memory has none.
    stream = next((array.stream() for array in (*others, *arrays) if array.framework), LEGACY)
    return work.step, (program, [packed], [1], [], pointers, types, 1.0, None, False, False, False, stream)
