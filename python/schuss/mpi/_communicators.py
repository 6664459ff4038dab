"""The communicators of sharded optimizers: duplicates of the users', which are used again. It knows no optimizer.

All processes have to free a communicator together, but each collects its garbage at a time of its own. So an optimizer
that is gone only marks its communicator as free in this process, and a new one takes one that is free in all.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np


def mpi() -> Any:
    """mpi4py's module, imported with the first optimizer: its import starts MPI."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            "schuss.mpi needs the package mpi4py, and an MPI such as the package mpich: pip install mpi4py mpich"
        ) from error
    return MPI


class _Pool:
    """The duplicates of a communicator, in the order in which all processes made them."""

    def __init__(self) -> None:
        self.comms: list[Any] = []
        #: Whether no optimizer of this process has it.
        self.free: list[bool] = []

    def free_in_all(self, parent: Any) -> list[int]:
        """The numbers of those that are free in all processes, which call this together."""
        free = np.array(self.free, np.uint8)
        if free.size:
            parent.Allreduce(mpi().IN_PLACE, free, op=mpi().MIN)
        numbers: list[int] = np.flatnonzero(free).tolist()
        return numbers

    def give_back(self, number: int) -> None:
        """What the garbage collector calls: nothing here may send a message."""
        self.free[number] = self.comms[number].handle not in _abandoned


#: By their handles, the communicators that are never used again, and the memory of their messages.
_abandoned: dict[int, Any] = {}
#: The attribute of a communicator that is its pool: all of MPI's handles for the same communicator have it.
_keyval: int | None = None


def take(parent: Any, owner: object) -> Any:
    """A duplicate of `parent` for `owner`, as long as it lives; all processes call this together."""
    global _keyval
    if _keyval is None:
        _keyval = mpi().Comm.Create_keyval(delete_fn=_free)
    pool = parent.Get_attr(_keyval)
    if pool is None:
        pool = _Pool()
        parent.Set_attr(_keyval, pool)
    free = pool.free_in_all(parent)
    number = free[0] if free else len(pool.comms)
    if not free:
        pool.comms.append(parent.Dup())
        pool.free.append(False)
    pool.free[number] = False
    weakref.finalize(owner, pool.give_back, number).atexit = False
    return type(parent)(pool.comms[number])


def abandon(comm: Any, memory: Any = None) -> None:
    """Lets no other optimizer have a communicator: after an error, messages may be on their way to this memory."""
    _abandoned[comm.handle] = memory


def _free(parent: Any, _: int, pool: _Pool) -> None:
    """Frees duplicates when the user frees their parent, which all processes do together."""
    if parent not in (mpi().COMM_WORLD, mpi().COMM_SELF):  # these end with MPI
        for number in pool.free_in_all(parent):
            pool.comms[number].Free()
