"""Turns of threads at an optimizer of torch's: a plan that one of them makes has the memory of the present one."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")

#: Seconds for which a thread waits for its turn. There is an end, since the other may be waiting for this thread.
PATIENCE = 10.0


class Turns:
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

    def __reduce__(self) -> tuple[type[Turns], tuple[()]]:
        return Turns, ()  # a copy of an optimizer has its own

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def in_turn(method: Callable[..., R]) -> Callable[..., R]:
    """A method of an optimizer that waits for its turn."""

    @functools.wraps(method)
    def waiting(self: Any, *args: Any, **kwargs: Any) -> R:
        with self._turns:
            return method(self, *args, **kwargs)

    return waiting
