"""Reads arrays on a GPU as other libraries describe them: PyTorch's tensors, the CUDA array interface, and DLPack.

It knows no optimizer, and changes no array.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from schuss import _schuss
from schuss._arrays import checks
from schuss._backends.cuda_arrays import LEGACY, DeviceArray, current_stream, dtype_of

_TYPES = {"<f4": "float32", "<f8": "float64", "<f2": "float16"}
_DLPACK = {(2, 32): "float32", (2, 64): "float64", (2, 16): "float16", (4, 16): "bfloat16"}
#: The dtypes of arrays that can be used.
DTYPES = tuple(_DLPACK.values())


def adapt(place: str, array: Any) -> DeviceArray:
    """Another library's array as a view to update in place; raises if that is impossible."""
    if array is None:
        raise TypeError(f"{place} is None; every entry must be an array")
    if _library(array) == "jax":
        raise TypeError(
            f"{place} is an array of JAX, which cannot be changed in place; keep the parameters in arrays of CuPy or "
            "PyTorch, and pass JAX's gradients"
        )
    if not checks.is_on_gpu(array):
        raise ValueError(
            f"{place} is in host memory, but others are on a GPU; all arrays of an optimizer must lie on one device"
        )
    described = describe(place, array)
    if described.dtype not in DTYPES:
        raise TypeError(f"{place} has dtype {described.dtype}; it must be float32, float64, float16 or bfloat16")
    if not described.writable:
        raise ValueError(
            f"{place} is read-only; pass a writable array, or copy it once and use that array in the model too"
        )
    if described.order is None:
        raise ValueError(f"{place} is not contiguous; make it so once and use that array in the model too")
    dtype = dtype_of(described.dtype)
    if described.pointer % dtype.itemsize:
        raise ValueError(f"{place} is not aligned to its {dtype.itemsize}-byte elements")
    return DeviceArray(
        described.pointer,
        described.shape,
        dtype,
        described.order,
        _device_of(place, described),
        array,
        described.framework,
    )


def _device_of(place: str, described: Description) -> int:
    if math.prod(described.shape) == 0:
        return -1  # an empty array is on no device
    device = _schuss.cuda_device_of(described.pointer)
    if device is None:
        raise ValueError(f"{place} says that it is on a GPU, but the driver knows nothing of its memory")
    return device


class Description(NamedTuple):
    """An array as another library describes it."""

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    order: Literal["C", "F"] | None  # None: not contiguous
    writable: bool
    stream: int  # its producer's stream; 0 if nothing needs to be waited for
    framework: str


def describe(place: str, array: Any) -> Description:
    """What an array says of itself; raises `TypeError` if the array cannot be used."""
    torch = sys.modules.get("torch")
    if isinstance(array, DeviceArray):
        return Description(
            array.pointer, array.shape, array.dtype.name, array.order, True, array.stream(), array.framework
        )
    if torch is not None and isinstance(array, torch.Tensor):
        if array.layout is not torch.strided:
            raise TypeError(f"{place} is a sparse tensor; pass a dense one, for example {place}.to_dense()")
        kind, shape = str(array.dtype).removeprefix("torch."), tuple(array.shape)
        stream = current_stream("torch", array.device.index)
        return Description(array.data_ptr(), shape, kind, _order(shape, array.stride()), True, stream, "torch")
    library = _library(array)
    if library == "jax":  # its interface does not say in which stream it is made
        return _through_dlpack(place, array, library)
    try:
        interface = array.__cuda_array_interface__
    except Exception:  # CuPy has bfloat16, which the interface cannot express
        return _through_dlpack(place, array, library)
    if interface.get("mask") is not None:
        raise TypeError(f"{place} is a masked array; pass its data")
    shape, named = tuple(interface["shape"]), str(interface["typestr"])
    dtype = getattr(array, "dtype", None)
    kind = "bfloat16" if str(dtype) == "bfloat16" else _TYPES.get(named, named)
    size = int(named[2:])
    steps = interface.get("strides")
    strides = None if steps is None else tuple(step // size for step in steps)
    pointer, read_only = interface["data"]
    stream = interface.get("stream", LEGACY) or 0
    return Description(pointer, shape, kind, _order(shape, strides), not read_only, stream, library)


def arrays_of_others(params: Iterable[DeviceArray], framework: str) -> list[Any]:
    """The arrays of other libraries than this one."""
    others = (param.owner for param in params if param.framework != framework)
    return [owner for owner in others if not isinstance(owner, _schuss.CudaBlock)]


def counted_tensors(params: Iterable[DeviceArray]) -> list[Any]:
    """The tensors among parameters whose changes PyTorch counts."""
    torch = sys.modules.get("torch")
    owners = [] if torch is None else [param.owner for param in params if isinstance(param.owner, torch.Tensor)]
    return [owner for owner in owners if not owner.is_inference()]


def _library(array: Any) -> str:
    """The library that an array is of, if it has something of its own: "cupy", "jax", or ""."""
    name = type(array).__module__.partition(".")[0]
    return {"cupy": "cupy", "jax": "jax", "jaxlib": "jax"}.get(name, "")


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


def _through_dlpack(place: str, array: Any, library: str) -> Description:
    try:
        capsule = array.__dlpack__(stream=LEGACY)  # the producer makes that stream wait for it
    except Exception as error:
        raise TypeError(f"{place} is an object of type {type(array).__name__} that cannot be read: {error}") from error
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # The capsule is not consumed: the array owns the memory, and the capsule is freed when this returns.
    tensor = _Tensor.from_address(get(capsule, b"dltensor"))
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
    kind = _DLPACK.get((tensor.code, tensor.bits), f"of type code {tensor.code} with {tensor.bits} bits")
    framework = "cupy" if library == "cupy" else ""  # JAX has no current stream
    stream = current_stream(framework, tensor.device_id)
    pointer, writable = (tensor.data or 0) + tensor.byte_offset, library != "jax"
    return Description(pointer, shape, kind, _order(shape, strides), writable, stream, framework)
