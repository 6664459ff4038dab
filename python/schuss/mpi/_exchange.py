"""The messages of a sharded optimizer, on mpi4py: an exchange for each step, and errors that all processes raise."""

from __future__ import annotations

import builtins
import functools
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np

from schuss import _schuss
from schuss._backends.protocol import Call
from schuss.mpi._communicators import abandon, mpi

T = TypeVar("T")

#: Bytes of one message where arrays of any size are sent.
CHUNK = 1 << 26
#: The most numbers that are combined at a time: sums of blocks.
NUMBERS = 1 << 14
_PENDING, _TOGETHER, _DISAGREED = 0, 1, 2


def connect(comm: Any, shards: _schuss.Shards) -> int:
    """Gives the shards the functions and the memory of their messages; returns the bytes of this memory."""
    MPI = mpi()
    rank, sums, buckets = comm.Get_rank(), shards.sums, shards.bytes
    send = max((sums[rank] * sum(one for one, _ in own) for own in buckets), default=0)
    receive = max((sum(sums) * own[rank][0] for own in buckets), default=0)
    part = max((own[rank][1] for own in buckets), default=0)
    whole = max((sum(one for _, one in own) for own in buckets), default=0)
    memory = [[_aligned(size) for _ in range(2)] for size in (send, receive, part, whole)]
    gradients, params = [], []
    for number, own in enumerate(buckets):
        sent, received, mine, all_of_them = (pair[number % 2] for pair in memory)
        counts = [sums[rank] * one for one, _ in own]
        from_each = [count * own[rank][0] for count in sums]
        gradients.append(
            functools.partial(
                comm.Ialltoallv,
                [sent, counts, _starts(counts), MPI.BYTE],
                [received, from_each, _starts(from_each), MPI.BYTE],
            )
        )
        parts = [one for _, one in own]
        params.append(
            functools.partial(
                comm.Iallgatherv, [mine, parts[rank], MPI.BYTE], [all_of_them, parts, _starts(parts), MPI.BYTE]
            )
        )
    numbers = np.empty(NUMBERS)
    shards.connect([comm.Allreduce, MPI.IN_PLACE, MPI.UINT64_T, MPI.BOR], numbers, [gradients, params], memory)
    return numbers.nbytes + sum(array.nbytes for pair in memory for array in pair)


def _aligned(size: int) -> np.ndarray:
    return np.empty(-(-size // 8), np.float64).view(np.uint8)


def _starts(counts: list[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]


def broadcast(comm: Any, array: np.ndarray) -> None:
    """Sends an array of process 0 to all; it is contiguous."""
    MPI = mpi()
    content = array.reshape(-1, order="A").view(np.uint8)
    for at in range(0, content.size, CHUNK):
        comm.Bcast([content[at : at + CHUNK], MPI.BYTE], root=0)


def local_ranks(comm: Any) -> int:
    """The number of processes on this machine."""
    MPI = mpi()
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    count: int = node.Get_size()
    node.Free()
    return count


def set_threads(comm: Any) -> None:
    """Divides this machine's CPUs among its processes, unless the user has chosen a number of threads."""
    count, threads = local_ranks(comm), _schuss.get_num_threads()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads == cpus and not os.environ.get("SCHUSS_NUM_THREADS") and count > 1:
        _schuss.set_num_threads(max(1, cpus // count))


def together(comm: Any, function: Callable[[], T], describe: Callable[[T], Mapping[str, Any]] = lambda result: {}) -> T:
    """The result of a function that sends nothing; if it fails in one process, all raise its error.

    What `describe` makes of the result must be the same in all.
    """
    error: BaseException | None = None
    result: T | None = None
    try:
        result = function()
    except BaseException as own:
        error = own
    raise_together(comm, error, lambda: describe(cast(T, result)), always=False)
    return cast(T, result)


def change_together(comm: Any, change: Callable[[Call], None]) -> None:
    """Makes changes in all processes or in none.

    `change` gets a call for `Changes.make_after`, in which all agree. After it a process can only fail for lack of
    a few bytes, and then alone.
    """
    told = False

    def agree(ready: bool) -> None:
        nonlocal told
        if ready:  # else it is called to take its work back
            told = True
            raise_together(comm, None, dict, always=False)

    try:
        change((agree, True, False))
    except BaseException as error:
        if not told:
            raise_together(comm, error, dict)
        raise


def uninterrupted(function: Callable[[threading.Event], None]) -> None:
    """Runs a function that sends messages to its end, whatever signal arrives; an interrupt is raised after it.

    It runs in a thread of its own, where no handler of a signal runs. It may end early if the event is set.
    """
    if mpi().Query_thread() < mpi().THREAD_SERIALIZED or threading.current_thread() is not threading.main_thread():
        return function(threading.Event())
    begun, stopped = threading.Event(), threading.Event()
    errors: list[BaseException] = []
    # Not an event: if a signal's handler raises in the middle of `Event.wait`, the lock in it may stay taken for ever.
    running, done = threading.Lock(), False
    running.acquire()

    def run() -> None:
        nonlocal done
        begun.set()
        try:
            if not stopped.is_set():
                function(stopped)
        except BaseException as error:
            errors.append(error)
        done = True
        running.release()

    try:
        threading.Thread(target=run, daemon=True).start()
        running.acquire()
    except BaseException:
        stopped.set()
        if begun.is_set() and not done:  # if it has not begun, it will not send anything
            running.acquire()
        raise
    if errors:
        raise errors[0]


def step(shards: _schuss.Shards, comm: Any, function: Callable[[], T], describe: Callable[[], Mapping[str, Any]]) -> T:
    """The result of a function that exchanges a step; an error in one process before the exchange is raised in all."""
    shards.begin([])
    try:
        return function()
    except BaseException as error:
        if shards.phase == _PENDING:
            shards.refuse()
            raise_together(comm, error, dict)
        if shards.phase == _DISAGREED:
            raise_together(comm, None, describe)
        if not isinstance(error, FloatingPointError):  # which is raised between messages
            abandon(comm, shards)
        raise


def compare(shards: _schuss.Shards, comm: Any, describe: Callable[[], Mapping[str, Any]]) -> None:
    """Raises unless all processes have the same description. Those that have begun a step send theirs too."""
    shards.begin([])
    shards.refuse()
    raise_together(comm, None, describe, always=False)


def raise_together(
    comm: Any, error: BaseException | None, describe: Callable[[], Mapping[str, Any]], *, always: bool = True
) -> None:
    """Raises the first process's error in all; without one, an error that says in what their descriptions differ.

    All processes must get to the exchange here, so what may fail before it is another error of this process.
    """
    own, description = None, {}
    try:
        if error is None:
            description = {name: str(value) for name, value in describe().items()}
    except BaseException as other:
        error = other
    if error is not None:
        own = type(error).__name__, _message(error)
    everyone = comm.allgather((own, description))
    failed = [rank for rank, (raised, _) in enumerate(everyone) if raised is not None]
    if failed:
        if error is not None and not isinstance(error, Exception):
            raise error  # an interrupt is this process's own
        name, message = everyone[failed[0]][0]
        raise _rebuilt(name, message, f" (in process {failed[0]})" if len(everyone) > 1 else "") from error
    first = everyone[0][1]
    for rank, (_, theirs) in enumerate(everyone):
        for key in (*first, *theirs):
            if first.get(key) != theirs.get(key):
                one, another = (found.get(key, "nothing") for found in (first, theirs))
                raise ValueError(f"the processes differ in {key}: {one} in process 0, {another} in process {rank}")
    if always:
        raise RuntimeError("the processes do not take the same step")


def _message(error: BaseException) -> str:
    try:
        # The text of a KeyError is the repr of its argument.
        return " ".join(map(str, error.args)) if isinstance(error, KeyError) else str(error)
    except Exception:
        return "an error without a text"


def _rebuilt(name: str, message: str, where: str) -> Exception:
    """An error of another process."""
    kind = getattr(builtins, name, None)
    # A StopIteration would end the caller's loop.
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, StopIteration):
        try:
            return kind(message + where)
        except TypeError:  # it is made of more than a text
            pass
    return RuntimeError(f"{name}: {message}{where}")
