"""The lock of a torch optimizer: one thread uses it at a time."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")

#: Seconds for which a thread waits for the lock. There is an end, since the other may be waiting for this thread.
PATIENCE = 10.0


class Lock:
    """A context in which no other thread uses the optimizer; within it, its own may enter again, as hooks do."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        # At first without a time, which takes longer.
        if not (self._lock.acquire(False) or self._lock.acquire(timeout=PATIENCE)):
            raise RuntimeError(
                "this optimizer is in the middle of a step, or of being saved or loaded, in another thread; use it "
                "from one place at a time"
            )

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()  # a copy of an optimizer has its own

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def locked(method: Callable[..., R]) -> Callable[..., R]:
    """A method of an optimizer that holds its lock while it runs."""

    @functools.wraps(method)
    def waiting(self: Any, *args: Any, **kwargs: Any) -> R:
        with self._lock:
            return method(self, *args, **kwargs)

    return waiting
