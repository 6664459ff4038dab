"""Checkpoints of a sharded optimizer: ordinary files, which process 0 writes and every process reads its parts of."""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from schuss import checkpoint
from schuss._arrays import tensor_files
from schuss._arrays.tensor_files import Stored
from schuss._core import validate
from schuss._core.loading import Unfit
from schuss._core.optimizer import Optimizer
from schuss.mpi._backend import ShardedHost
from schuss.mpi._communicators import abandon, mpi
from schuss.mpi._exchange import CHUNK, change_together, together


def save(
    comm: Any,
    optimizer: Optimizer,
    backend: ShardedHost,
    path: str | os.PathLike[str],
    include_params: bool,
    refuse: Callable[[str], None],
    stopped: threading.Event,
) -> None:
    """See :meth:`schuss.mpi.Sharded.save`; `refuse` raises if it cannot be called now."""

    def parts() -> list[Stored]:
        refuse("save")
        tensors = checkpoint.stored_tensors(optimizer, validate.flag("include_params", include_params))
        return [tensor for tensor in tensors.values() if backend.is_part(tensor.array)]

    own = together(comm, parts, lambda _: {"include_params": include_params})
    sizes = comm.gather([tensor.array.nbytes for tensor in own])
    if comm.Get_rank() > 0:
        # Process 0 asks for each piece, so that it can stop anywhere.
        while (piece := comm.recv(source=0)) is not None:
            number, start, stop = piece
            comm.Send([_bytes(own[number].array)[start:stop], mpi().BYTE], dest=0)
        together(comm, lambda: None)
        return
    numbers = {id(tensor.array): number for number, tensor in enumerate(own)}

    def pieces(name: str, tensor: Stored) -> Iterator[np.ndarray]:
        number = numbers.get(id(tensor.array))
        if number is None:
            return tensor_files.content(name, tensor)
        own = _pieces(comm, number, tensor, [of_all[number] for of_all in sizes])
        return own if tensor.order == "C" else _turned(tensor, own)

    def content(name: str, tensor: Stored) -> Iterator[np.ndarray]:
        for piece in pieces(name, tensor):
            if stopped.is_set():
                raise OSError("the save was interrupted")
            yield piece

    def write() -> None:
        try:
            with optimizer._exclusive():
                checkpoint.write(path, optimizer, include_params, content)
        except BaseException:
            abandon(comm)  # a piece that was asked for may be on its way
            raise
        finally:
            for rank in range(1, comm.Get_size()):
                comm.send(None, dest=rank)

    together(comm, write)


def _bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def _pieces(comm: Any, number: int, tensor: Stored, sizes: Sequence[int]) -> Iterator[np.ndarray]:
    """The elements of a tensor of all processes, in the order of memory."""
    received = np.empty(min(CHUNK, max(sizes)), np.uint8)
    for rank, size in enumerate(sizes):
        for start in range(0, size, CHUNK):
            stop = min(start + CHUNK, size)
            if rank == 0:
                yield _bytes(tensor.array)[start:stop]
                continue
            comm.send((number, start, stop), dest=rank)
            piece = received[: stop - start]
            comm.Recv([piece, mpi().BYTE], source=rank)
            yield piece


def _turned(tensor: Stored, pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """A tensor in C order, of the elements in Fortran order."""
    whole, at = np.empty(tensor.nbytes, np.uint8), 0
    for piece in pieces:
        whole[at : at + piece.size] = piece
        at += piece.size
    yield np.ascontiguousarray(whole.view(tensor.array.dtype).reshape(tensor.shape, order="F"))


def load(
    comm: Any,
    optimizer: Optimizer,
    backend: ShardedHost,
    path: str | os.PathLike[str],
    include_params: bool,
    loaded: Callable[[], None],
) -> None:
    """See :meth:`schuss.mpi.Sharded.load`; `loaded` is called after it."""
    with contextlib.ExitStack() as stack:
        prepared = together(
            comm,
            lambda: stack.enter_context(
                checkpoint.prepared(path, optimizer, validate.flag("include_params", include_params), Unfit(True))
            ),
            lambda found: {"include_params": include_params, "the file": _digest(found, backend)},
        )
        change_together(comm, lambda agree: prepared.load(optimizer, agree))
        loaded()


def _digest(prepared: checkpoint.Prepared, backend: ShardedHost) -> str:
    """A hash of what all processes read of a file: of some, it might be an old one of the same name."""
    found = zlib.crc32(prepared.text.encode())
    for target, source in prepared.copies:
        if not backend.is_part(target):
            found = zlib.crc32(_bytes(np.ascontiguousarray(source)).data, found)
    return f"one with the hash {found:08x}"
