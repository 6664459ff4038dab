"""What tests of `schuss.mpi` run in every process of a job: ``python -m mpi4py mpi_program.py CASE [FILE]``.

Each case asserts; one that passes prints "passed" from process 0. Here are those about messages and memory.
"""

import contextlib
import doctest
import gc
import os
import sys
import tracemalloc

import mpi_bits
import mpi_errors
import mpi_interrupts
import numpy as np
from mpi4py import MPI
from mpi_job import COMM, RANK, RANKS

import schuss
import schuss.mpi._model
import schuss.mpi._sharded
from schuss.mpi import Machine, Sharded, predict


def many():
    """Optimizers that are gone leave no communicator: there are 2,048 of these."""
    for _ in range(2100):
        Sharded(schuss.SGD, np.ones(3), comm=MPI.COMM_SELF, lr=0.1).step(np.ones(3))
        with contextlib.suppress(ValueError):
            Sharded(schuss.SGD, np.ones(3), comm=MPI.COMM_SELF, lr=-1)
        comm = MPI.COMM_SELF.Dup()
        Sharded(schuss.SGD, np.ones(3), comm=comm, lr=0.1)
        comm.Free()  # with its duplicates


class Cycle:
    """What only the garbage collector drops."""

    def __init__(self, comm, params):
        self.itself = self
        self.opt = Sharded(schuss.SGD, params, comm=comm, lr=0.1)


def gone():
    """Optimizers are dropped at another time in each process, and between other messages; communicators stay few."""
    gc.disable()
    duplicated = []

    class Counted(MPI.Intracomm):
        def Dup(self, info=None):
            duplicated.append(self)
            return super().Dup(info)

    comm = Counted(COMM.Split(0, RANK))
    params, given = np.ones(100), np.ones(100)
    own = Sharded(schuss.SGD, params, comm=comm, lr=1.0)
    for turn in range(30):
        Cycle(comm, np.ones(3)).opt.step(np.ones(3))
        with contextlib.suppress(ValueError):  # the traceback has the optimizer that is refused, in a cycle
            Cycle(comm, np.ones(3 + (RANK == 0)))
        if turn % RANKS == RANK:
            gc.collect()
        own.step(given)
        if turn % 5 == RANK:
            gc.collect()
        own.step(given)
    assert np.all(params == 1 - 60)
    assert len(duplicated) < 30, len(duplicated)
    del own
    gc.collect()
    # As many as before find one that is free in all processes, and have it alone.
    count = len(duplicated)
    living = [Sharded(schuss.SGD, np.ones(1), comm=comm, lr=1.0) for _ in range(count)]
    assert len(duplicated) == count and len({opt._comm.handle for opt in living}) == count
    for opt in reversed(living):
        assert opt.step(np.ones(1))
    # One whose save failed may have a message on its way.
    with contextlib.suppress(OSError):
        living[0].save(os.path.join(os.devnull, "file"))
    failed = living[0]._comm.handle
    living.clear()
    del opt
    gc.collect()
    assert Sharded(schuss.SGD, np.ones(1), comm=comm, lr=1.0)._comm.handle != failed
    comm.Free()


def collected(folder):
    """What is refused is in cycles too: each process collects it at a time of its own, also inside of a call."""
    gc.set_threshold(50 * (RANK + 1) + 37 * RANK, 5, 5)
    mpi_errors.errors(folder)


def model():
    """The model's bytes are those of the messages, and of memory."""
    n, bucket = 1 << 20, 1 << 16
    own = Sharded(schuss.AdamW, np.ones(n, np.float32), lr=0.1, bucket_size=bucket)
    predicted = predict(Machine(1e-6, 1e9, 1e9), RANKS, n, bucket_size=bucket)
    buckets = own._shards.bytes
    sent = sum(sum(one[0] for rank, one in enumerate(parts) if rank != RANK) for parts in buckets)
    sent += sum((RANKS - 1) * parts[RANK][1] for parts in buckets)
    memory = own.memory
    assert abs(sent / predicted.traffic - 1) < 0.01, (sent, predicted)
    assert abs(memory["state"] / predicted.state - 1) < 0.01
    assert abs((sum(memory.values()) + 8 * n) / predicted.memory - 1) < 0.05, (memory, predicted)


class Recorded(MPI.Intracomm):
    """A communicator that notes which messages have been started."""

    started: list

    def Ialltoallv(self, *message):
        self.started.append("gradients")
        return super().Ialltoallv(*message)

    def Iallgatherv(self, *message):
        self.started.append("parameters")
        return super().Iallgatherv(*message)


def overlap():
    """Each bucket is updated, after which its parameters are sent, while the gradients of the next are on their way."""
    Recorded.started = started = []
    own = Sharded(schuss.AdamW, [np.ones(8192, np.float32)], comm=Recorded(COMM), bucket_size=2048)
    own.step([np.full(8192, 0.5, np.float32)])
    assert started == ["gradients", *["gradients", "parameters"] * 3, "parameters"], started


def save_memory(folder):
    """No process gathers the state for a file, not even the one that writes it."""
    params = [np.ones(1 << 18, np.float32) for _ in range(16)]
    own = Sharded(schuss.AdamW, params)
    own.step([np.full(1 << 18, 0.5, np.float32)] * 16)
    path = os.path.join(folder, "file")
    tracemalloc.start()
    own.save(path, include_params=False)
    peak = tracemalloc.get_traced_memory()[1]
    COMM.Barrier()
    assert peak < os.path.getsize(path) / 8, peak


def doctests():
    for module in (schuss.mpi._sharded, schuss.mpi._model):
        found = doctest.testmod(module)
        assert found.attempted and not found.failed
    assert "schuss.mpi" in sys.modules


if __name__ == "__main__":
    cases = {**vars(mpi_bits), **vars(mpi_errors), **vars(mpi_interrupts), **globals()}
    cases[sys.argv[1]](*sys.argv[2:])
    COMM.Barrier()
    if RANK == 0:
        print("passed")
