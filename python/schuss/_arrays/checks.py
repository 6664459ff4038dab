"""Checks that an array can be used as a parameter, a state or a gradient, with their error messages.

Every message names the array by its place, says what is wrong and how to fix it. Nothing here knows an optimizer.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import sys
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any, Literal

import numpy as np

from schuss import _schuss

_NATIVE = {"float32", "float64", "float16"}
_USE_IT = "and use that array in the model too"
#: The same for gradients that are changed in place.
STEP_WITH_IT = "and step with that array"
_NAMES = "float32, float64, float16 or bfloat16 (ml_dtypes)"


@functools.lru_cache(maxsize=64)
def known_dtype(dtype: np.dtype[Any]) -> bool:
    """Whether the kernels support this dtype; registers ml_dtypes' bfloat16 with them."""
    if not dtype.isnative:
        return False
    if dtype.name == "bfloat16":
        ml_dtypes = sys.modules.get("ml_dtypes")
        # Other types may be called so, and anybody can give a copy of a dtype another size.
        if ml_dtypes is None or dtype.type is not ml_dtypes.bfloat16 or dtype.itemsize != 2:
            return False
        _schuss.register_bfloat16(dtype)
        return True
    return dtype.name in _NATIVE


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that updates of such parameters are computed in; it is also their state's default dtype."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def order(array: np.ndarray) -> Literal["C", "F"]:
    """`"C"` or `"F"`, for a contiguous array."""
    return "C" if array.flags.c_contiguous else "F"


def is_on_gpu(thing: Any) -> bool:
    """Whether an object is an array on an NVIDIA GPU."""
    if type(thing) is np.ndarray:
        return False
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(thing, torch.Tensor):  # one that requires a gradient has no interface
        return bool(thing.is_cuda)
    try:
        return hasattr(thing, "__cuda_array_interface__") or int(thing.__dlpack_device__()[0]) == 2
    except Exception:  # not an array, or one without device information
        return False


def any_on_gpu(structure: Any, depth: int = 0) -> bool:
    """Whether a structure contains an array on a GPU; structures that are nested too deep are rejected elsewhere."""
    if isinstance(structure, (dict, list, tuple)) and depth <= 100:
        entries = structure.values() if isinstance(structure, dict) else structure
        return any(any_on_gpu(entry, depth + 1) for entry in entries)
    return is_on_gpu(structure)


def shown(array: Any) -> np.ndarray:
    """An array as `state_dict` returns it: a view, or a host copy of an array on a GPU."""
    result: np.ndarray = array.view() if isinstance(array, np.ndarray) else array.numpy()
    return result


def check_known(place: str, array: Any, use_it: str = _USE_IT) -> None:
    """Raises unless it is a NumPy array of a supported dtype; advice to make another one ends with `use_it`."""
    if array is None:
        raise TypeError(f"{place} is None; it must be a NumPy array")
    if not isinstance(array, np.ndarray):
        if is_on_gpu(array):
            raise TypeError(f"{place} is on a GPU; here it must be a NumPy array, in host memory")
        update = "and update the model from that array" if use_it == _USE_IT else use_it
        raise TypeError(f"{place} is {_a(array)}, not a NumPy array; {_advice(place, array, update)}")
    refuse_masked(place, array)
    if not known_dtype(array.dtype):
        if array.dtype.kind == "f" and not array.dtype.isnative:
            native = array.dtype.newbyteorder("=")
            raise ValueError(
                f"{place} is big-endian ({array.dtype.str}); convert it once with .astype(np.{native.name}) {use_it}"
            )
        advice = _conversion(place, array.dtype, "float32 or np.float64")
        if advice and array.dtype.kind != "O":
            advice = f"{advice} {use_it}"
        if array.dtype.kind in "biu" and use_it == _USE_IT:  # a counter or a mask among weights
            advice = f": leave it out if it is not trained, or{advice.removeprefix(':')}"
        raise TypeError(f"{place} has dtype {array.dtype}; it must be {_NAMES}{advice}")


def check_written(place: str, array: Any, use_it: str = _USE_IT) -> None:
    """Raises unless the array can be updated in place."""
    check_known(place, array, use_it)
    if not array.flags.writeable:
        raise ValueError(f"{place} is read-only; pass a writable array, or copy it once {use_it}")
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        whole = isinstance(array.base, np.ndarray) and array.base.size > array.size
        raise ValueError(
            f"{place} is not contiguous (shape {array.shape}, strides {array.strides}); make it so once with "
            f"np.ascontiguousarray {use_it}{'; or list the array that it is a slice of, once' if whole else ''}"
        )
    if not array.flags.aligned:
        raise ValueError(f"{place} is not aligned to its {array.itemsize}-byte elements; copy it once {use_it}")


def check_no_overlap(
    named: Iterable[tuple[str, np.ndarray]], same: str = "list a shared array once and add its gradients up"
) -> None:
    """Raises if two arrays share memory; `same` is the advice if one array is listed twice."""
    ranges = sorted((byte_range(array), i, place) for i, (place, array) in enumerate(named) if array.size)
    for one, other in itertools.pairwise(ranges):
        if one[0][1] > other[0][0]:
            (_, _, first), (_, _, second) = sorted((one, other), key=lambda entry: entry[1])
            if one[0] == other[0]:
                raise ValueError(f"{second} is the same memory as {first}; {same}")
            raise ValueError(f"{second} overlaps the memory of {first}; pass arrays that share no memory")


def byte_ranges(arrays: Iterable[np.ndarray]) -> list[tuple[int, int]]:
    """The byte ranges of arrays that share no memory, in order."""
    return sorted(byte_range(array) for array in arrays if array.size)


def overlaps(ranges: Sequence[tuple[int, int]], array: np.ndarray) -> bool:
    """Whether an array may share memory with those that have these byte ranges."""
    start, end = byte_range(array)
    before = bisect.bisect_left(ranges, (end, 0))
    return array.size > 0 and before > 0 and ranges[before - 1][1] > start


def byte_range(array: np.ndarray) -> tuple[int, int]:
    """The start and end address of an array, which may have gaps in between."""
    start = array.ctypes.data
    if array.flags.contiguous:
        return start, start + array.nbytes
    spans = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    return start + sum(span for span in spans if span < 0), start + array.itemsize + sum(s for s in spans if s > 0)


def check_zeroable(place: str, gradient: Any) -> None:
    """Raises unless a gradient can be set to zero in place."""
    if not isinstance(gradient, np.ndarray):
        raise TypeError(f"{place} is {_a(gradient)}, not a NumPy array, so it cannot be zeroed in place")
    if not gradient.flags.writeable:
        raise ValueError(f"{place} is read-only, so it cannot be zeroed; pass a copy")


def as_gradient(place: str, gradient: Any, param_place: str, param: np.ndarray, *, copy: bool = False) -> np.ndarray:
    """The gradient as an array that a kernel can read with this parameter, converted or copied only if necessary."""
    gradient = _numbers(place, gradient, param_place, param)
    if gradient.shape != param.shape:
        turned = param.ndim == 2 and gradient.shape == param.shape[::-1]
        advice = f"; it looks transposed: pass {place}.T" if turned else ""
        if not turned and [n for n in gradient.shape if n != 1] == [n for n in param.shape if n != 1]:
            advice = f"; pass {place}.reshape({param_place}.shape)"
        raise ValueError(f"{place} has shape {gradient.shape}, but {param_place} has shape {param.shape}{advice}")
    return _readable(gradient, order(param), copy)


def as_rows(place: str, values: Any, param_place: str, param: np.ndarray, count: int) -> np.ndarray:
    """The gradients of so many rows of a parameter as an array that a kernel can read."""
    values = _numbers(place, values, param_place, param)
    wanted = (count, *param.shape[1:])
    if values.shape != wanted:
        raise ValueError(
            f"{place} has shape {values.shape}; it must have the shape {wanted}: a row of {param_place}, which has "
            f"shape {param.shape}, for each index"
        )
    return _readable(values, "C", False)


def _numbers(place: str, gradient: Any, param_place: str, param: np.ndarray) -> np.ndarray:
    """The gradient as an array of floating-point numbers of any kind."""
    if gradient is None:
        raise TypeError(f"{place} is None; pass zeros, np.zeros_like({param_place}), for a parameter without gradient")
    if param.ndim == 0 and type(gradient) in (float, int):
        gradient = np.float64(gradient)
    if not isinstance(gradient, np.ndarray):
        if is_on_gpu(gradient):
            raise TypeError(f"{place} is on a GPU, but {param_place} is in host memory; copy the gradient to the host")
        if not any(hasattr(gradient, name) for name in ("__array__", "__array_interface__", "__dlpack__")):
            own = str(compute_dtype(param.dtype))  # this takes longer than all checks
            advice = "" if isinstance(gradient, Mapping) else f"; pass np.array(..., dtype=np.{own})"
            advice = "; pass the array itself" if isinstance(gradient, (Iterator, ValuesView)) else advice
            advice = "; call it, and pass what it returns" if callable(gradient) else advice
            if hasattr(gradient, "toarray"):  # a sparse matrix of SciPy, of which NumPy makes an array of objects
                advice = f"; pass {place}.toarray(), or to step_rows the indices and values of rows"
            raise TypeError(f"{place} is {_a(gradient)}, not an array like {param_place}{advice}")
        try:
            gradient = np.asarray(gradient)
        except Exception as error:
            advice = f"; pass {place}{_BFLOAT16_VIEW}" if "BFloat16" in str(error) else ""
            raise TypeError(f"{place} is {_a(gradient)} that NumPy cannot read: {error}{advice}") from error
    refuse_masked(place, gradient)
    dtype = gradient.dtype
    if not known_dtype(dtype) and dtype.kind != "f":
        own = str(compute_dtype(param.dtype))
        raise TypeError(f"{place} has dtype {dtype}; a gradient must be {_NAMES}{_conversion(place, dtype, own)}")
    result: np.ndarray = gradient
    return result


def _readable(gradient: np.ndarray, order: Literal["C", "F"], copy: bool) -> np.ndarray:
    """The numbers in an order, aligned and of a supported dtype."""
    dtype = gradient.dtype
    if not known_dtype(dtype):
        native = dtype.newbyteorder("=")
        dtype = native if known_dtype(native) else np.dtype(np.float64)
    needs_copy = copy or not gradient.flags.aligned
    return np.array(gradient, dtype=dtype, order=order, copy=True if needs_copy else _IF_NEEDED, subok=False)


#: A NumPy view of a PyTorch tensor in bfloat16.
_BFLOAT16_VIEW = ".view(torch.int16).numpy().view(ml_dtypes.bfloat16)"
_IF_NEEDED: Any = None if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else False


def check_like(place: str, array: Any, like: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Raises unless `array` has this shape and dtype, which are those of `like`."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{place} is {_a(array)}, not a NumPy array")
    refuse_masked(place, array)
    if array.shape != tuple(shape):
        raise ValueError(f"{place} has shape {array.shape}, but {like} has shape {tuple(shape)}")
    if array.dtype != dtype:
        raise TypeError(f"{place} has dtype {array.dtype}, but {like} has dtype {dtype}")


def refuse_masked(place: str, array: Any) -> None:
    """Raises if `array` is a masked array, whose mask would be lost."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{place} is a masked array; pass its .data, or .filled(0)")


def _a(thing: Any) -> str:
    if thing is None:
        return "None"
    name = type(thing).__name__
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def _conversion(place: str, dtype: np.dtype[Any], wanted: str) -> str:
    """How to make numbers of the wanted type from those of another."""
    if dtype.kind == "O":
        return f": pass the arrays in it, list({place})"
    if dtype.kind == "c":
        return f": take its real and imaginary parts with .view(np.float{dtype.itemsize * 4})"
    if dtype.kind not in "biuf":
        return ""
    return f": convert it with .astype(np.{'float64' if dtype.kind == 'f' else wanted})"


def _advice(place: str, thing: Any, update: str) -> str:
    if isinstance(thing, np.generic) or type(thing).__module__.startswith("jax"):  # neither can be written
        return f"make an array once, np.array({place}), {update}"
    if hasattr(thing, "named_parameters"):
        return f"for a model of PyTorch use schuss.torch, with {place}.parameters()"
    if hasattr(thing, "detach"):
        return f"for a model of PyTorch use schuss.torch, or pass a NumPy view of its memory, {place}.detach().numpy()"
    if hasattr(thing, "__dlpack__") or hasattr(thing, "__array__"):
        return f"pass a writable NumPy view of its memory, for example {place}.numpy()"
    if isinstance(thing, (Iterator, ValuesView)):
        return f"pass list({place})"
    if isinstance(thing, (ItemsView, Mapping)):
        return f"pass dict({place})"
    if isinstance(thing, str):
        return "names are the keys of a dict of arrays"
    if isinstance(thing, (FunctionType, MethodType, BuiltinMethodType)):
        return f"call it, {place}()"
    if isinstance(thing, Iterable) and not isinstance(thing, (str, bytes, list, tuple)):
        return "structures of arrays are lists, tuples and dicts"
    if any(isinstance(value, np.ndarray) for value in getattr(thing, "__dict__", {}).values()):
        return f"pass vars({place}), a dict of its arrays; dataclasses.asdict would copy them"
    return f"put the numbers into np.array(..., dtype=np.float32 or np.float64) {update}"
