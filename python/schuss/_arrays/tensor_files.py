"""Reads and writes files in the safetensors format. It knows no optimizer.

A file is read and not mapped into memory: a process ends that reads a map of a file which somebody has cut short.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "U8": "uint8"}


class Stored(NamedTuple):
    """A tensor of a file, and the array that has its elements in memory: all, or those from `start` on."""

    array: Any
    #: The shape of the tensor. It is stored in C order; `start` counts in this order or, for "F", in Fortran order.
    shape: tuple[int, ...]
    start: int
    order: Literal["C", "F"]

    @property
    def whole(self) -> bool:
        """Whether the array has all elements."""
        whole: bool = self.array.shape == self.shape
        return whole

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        size: int = math.prod(self.shape) * self.array.dtype.itemsize
        return size


class NotWholeError(ValueError):
    """The file is damaged, or of another format."""


class Entry(NamedTuple):
    """A tensor in a file."""

    shape: tuple[Any, ...]
    dtype: Any
    start: int
    end: int


class Header(NamedTuple):
    """The contents of a file: its metadata, and its tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, Entry]


def content(name: str, tensor: Stored) -> Iterator[np.ndarray]:
    """The elements of a tensor whose array has all of them, in C order."""
    yield np.ascontiguousarray(tensor.array)


def write(
    file: BinaryIO,
    tensors: Mapping[str, Stored],
    metadata: Mapping[str, str],
    content: Callable[[str, Stored], Iterator[np.ndarray]] = content,
) -> None:
    """Writes tensors; the largest elements come first, so that all are aligned.

    `content` gives the elements of a tensor in C order, in one or several arrays.
    """
    import json

    codes = {name: code for code, name in DTYPES.items()}
    names = sorted(tensors, key=lambda name: (-tensors[name].array.dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name in names:
        array, shape = tensors[name].array, tensors[name].shape
        if array.dtype.name not in codes or not array.dtype.isnative:  # it was retyped after the optimizer was made
            raise TypeError(f"{name} has dtype {array.dtype}, which a checkpoint cannot hold")
        offsets = [at, at + tensors[name].nbytes]
        header[name] = {"dtype": codes[array.dtype.name], "shape": list(shape), "data_offsets": offsets}
        at = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        if tensors[name].nbytes:
            for part in content(name, tensors[name]):
                file.write(part.reshape(-1).view(np.uint8).data)
    file.flush()


def opened(path: str) -> BinaryIO:
    """Opens a regular file; opening any other might wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return open(path, "rb")


def read_header(file: BinaryIO, most: int) -> Header:
    """Reads and checks the header, which may have at most so many bytes."""
    import json

    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(_exactly(file, 8), "little")
    if not 0 < length <= size - 8:
        raise NotWholeError("its header does not fit into it")
    if length > most:
        raise NotWholeError(f"its header has {length:,} bytes, far too many for this optimizer")
    try:
        header = json.loads(_exactly(file, length))
        metadata = header.pop("__metadata__", None) or {}
        entries = {name: _entry(own, 8 + length) for name, own in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NotWholeError(f"its header is damaged: {error}") from None
    if not isinstance(metadata, dict):
        raise NotWholeError("its metadata is damaged")
    at = 8 + length
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != at or entry.end < at:
            raise NotWholeError("its tensors overlap, or leave a gap")
        at = entry.end
    if at != size:
        raise NotWholeError(f"its tensors need {at:,} bytes, and it has {size:,}")
    return Header(metadata, entries)


def _entry(given: dict[str, Any], first: int) -> Entry:
    start, end = given["data_offsets"]
    if type(start) is not int or type(end) is not int:
        raise TypeError("a tensor's place is no pair of numbers")
    return Entry(tuple(given["shape"]), DTYPES.get(given["dtype"], given["dtype"]), first + start, first + end)


def read(file: BinaryIO, tensors: Sequence[tuple[Entry, Stored]]) -> list[np.ndarray]:
    """The elements of tensors that the arrays beside them have, in their shapes and dtypes."""
    sizes = [like.array.nbytes if _in_place(like) else 0 for _, like in tensors]
    spaces = [-(-size // 64) * 64 for size in sizes]  # so that the next begins where any dtype may
    memory = np.empty(sum(spaces), np.uint8)  # in one piece, which the system can make of large pages
    ends = itertools.accumulate(spaces)
    return [_read(file, *one, memory[end - n : end]) for one, n, end in zip(tensors, spaces, ends, strict=True)]


def _in_place(like: Stored) -> bool:
    """Whether an array's elements lie in the file as in memory."""
    return like.whole or like.order == "C"


def _read(file: BinaryIO, entry: Entry, like: Stored, memory: np.ndarray) -> np.ndarray:
    if entry.end - entry.start != like.nbytes:
        raise NotWholeError("a tensor's size is not that of its shape")
    if _in_place(like):
        array: np.ndarray = np.ndarray(like.array.shape, like.array.dtype, memory)
        first = entry.start + like.start * array.itemsize
    else:
        array, first = np.empty(like.shape, like.array.dtype), entry.start
    if array.nbytes:
        file.seek(first)
        _fill(file, array.reshape(-1).view(np.uint8))
    if not _in_place(like):
        part = slice(like.start, like.start + like.array.size)
        array = array.reshape(-1, order="F")[part].reshape(like.array.shape).copy()
    return array


def _exactly(file: BinaryIO, n: int) -> bytes:
    content = file.read(n)
    if len(content) != n:
        raise NotWholeError("it is too short")
    return content


def _fill(file: BinaryIO, memory: np.ndarray) -> None:
    readinto: Callable[[Any], int] = file.readinto  # type: ignore[attr-defined]
    if readinto(memory) != memory.size:
        raise NotWholeError("it is too short")
