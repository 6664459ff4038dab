"""Making a sharded optimizer, and adding groups to it: in all processes or in none, with the values of process 0.

It takes no steps.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

from schuss._arrays import checks
from schuss._backends.host import NEW
from schuss._backends.protocol import Change, Copy
from schuss._core.given_groups import check_group, listed, listed_group
from schuss._core.optimizer import Optimizer
from schuss.mpi import _arguments
from schuss.mpi._backend import ShardedHost
from schuss.mpi._exchange import broadcast, change_together, connect, together, uninterrupted


def made(
    comm: Any, kind: type[Optimizer], params: Any, options: Mapping[str, Any], microbatches: int, bucket_size: int
) -> Optimizer:
    """The optimizer that processes share, of arguments that were checked."""
    params = listed(params)
    rank, ranks = comm.Get_rank(), comm.Get_size()

    def make() -> Optimizer:
        token = NEW.set(ShardedHost(rank, ranks, bucket_size, microbatches, functools.partial(connect, comm)))
        try:
            return kind(params, **options)
        finally:
            NEW.reset(token)

    optimizer = together(comm, make, _arguments.description)
    if ranks > 1:
        for array in optimizer._params:
            broadcast(comm, array)
        del optimizer  # its state may depend on parameters
        optimizer = together(comm, make)
    return optimizer


def add(
    comm: Any, optimizer: Optimizer, backend: ShardedHost, group: Mapping[str, Any], refuse: Callable[[str], None]
) -> None:
    """See :meth:`schuss.mpi.Sharded.add_param_group`; `refuse` raises if it cannot be called now."""
    uninterrupted(lambda _: _add(comm, optimizer, backend, group, refuse))


def _add(
    comm: Any, optimizer: Optimizer, backend: ShardedHost, group: Mapping[str, Any], refuse: Callable[[str], None]
) -> None:
    known = len(optimizer._params)

    def added(usable: Mapping[str, Any]) -> list[Change]:
        with backend.tried() as divided:
            changes = optimizer._group_added(usable)
        return [*divided, *changes]

    with contextlib.ExitStack() as stack:

        def prepare() -> tuple[dict[str, Any], list[Any], list[Copy]]:
            refuse("add the group")
            check_group(group)
            usable = listed_group(group)
            stack.enter_context(optimizer._exclusive())
            changed = {name: value for _, name, value in added(usable)}
            values = [(array, array.copy(checks.order(array))) for array in changed["_params"][known:]]
            return usable, [changed[name] for name in ("_suffixes", "_params", "_groups")], values

        usable, _, values = together(
            comm, prepare, lambda found: _arguments.description_of_groups(optimizer, *found[1])
        )
        try:
            for array, _ in values:
                broadcast(comm, array)
            # Only now: states may depend on the values.
            change_together(comm, lambda agree: backend.changes(added(usable)).make_after([agree]))
        except Exception:
            backend.changes(copies=values).make()
            raise
