"""Checkpoints of a sharded optimizer: ordinary files, which process 0 writes and every process reads its parts of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from schuss import checkpoint
from schuss._arrays import tensor_files
from schuss._arrays.tensor_files import Stored
from schuss._core.optimizer import Optimizer
from schuss._core.state import Unfit
from schuss.mpi._backend import ShardedHost
from schuss.mpi._exchange import CHUNK, mpi, together


def save(
    comm: Any, optimizer: Optimizer, backend: ShardedHost, path: str | os.PathLike[str], include_params: bool
) -> None:
    """See :meth:`schuss.mpi.Sharded.save`."""
    if comm.Get_rank() > 0:
        tensors = checkpoint.stored_tensors(optimizer, include_params)
        while (name := comm.bcast(None)) is not None:
            _send(comm, tensors[name])
        together(comm, lambda: None)
        return

    arriving: list[Generator[np.ndarray]] = []

    def content(name: str, tensor: Stored) -> Iterator[np.ndarray]:
        if not backend.is_part(tensor.array):
            return tensor_files.content(name, tensor)
        comm.bcast(name)
        arriving.append(_received(comm, tensor))
        return arriving[-1]

    def write() -> None:
        try:
            with optimizer._exclusive():
                checkpoint.write(path, optimizer, include_params, content)
        finally:
            # After an error the rest of a tensor is received, since the others are sending it.
            for tensor in arriving:
                tensor.close()
            comm.bcast(None)

    together(comm, write)


def _send(comm: Any, tensor: Stored) -> None:
    """Sends the part of a tensor to process 0."""
    part = tensor.array.reshape(-1).view(np.uint8)
    comm.gather(part.size, root=0)
    for at in range(0, part.size, CHUNK):
        comm.Send([part[at : at + CHUNK], mpi().BYTE], dest=0)


def _received(comm: Any, tensor: Stored) -> Generator[np.ndarray]:
    """The parts of a tensor of all processes, in order; of one in Fortran order, all at once."""
    sizes = comm.gather(tensor.array.nbytes, root=0)
    whole = np.empty(tensor.nbytes if tensor.order == "F" else 0, np.uint8)
    at, wanted = 0, True
    for rank, size in enumerate(sizes):
        for start in range(0, size, CHUNK):
            count = min(CHUNK, size - start)
            if rank == 0:
                part = tensor.array.reshape(-1).view(np.uint8)[start : start + count]
            else:
                part = np.empty(count, np.uint8)
                comm.Recv([part, mpi().BYTE], source=rank)
            if tensor.order == "F":
                whole[at : at + count] = part
            elif wanted:
                try:
                    yield part
                except GeneratorExit:
                    wanted = False
            at += count
    if tensor.order == "F" and wanted:
        yield np.ascontiguousarray(whole.view(tensor.array.dtype).reshape(tensor.shape, order="F"))


def load(comm: Any, optimizer: Optimizer, path: str | os.PathLike[str], include_params: bool) -> None:
    """See :meth:`schuss.mpi.Sharded.load`."""
    file = checkpoint.prepared(path, optimizer, include_params, Unfit(True))
    with contextlib.ExitStack() as stack:
        together(comm, lambda: stack.enter_context(file))()
