"""The backend of an optimizer whose arrays processes share: each has a part of every state. It sends nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, formats, layout
from schuss._arrays.tensor_files import Stored
from schuss._backends.host import Host
from schuss._backends.protocol import Change, GroupArrays, Owner
from schuss.mpi._cuts import cut


class _Part(NamedTuple):
    """The elements of a parameter that this process updates, in memory order."""

    param: np.ndarray
    view: np.ndarray
    cuts: list[int]
    start: int


class ShardedHost(Host):
    """The backend of one optimizer in process `rank` of `ranks`; `connect` gives shards their messages."""

    shards: _schuss.Shards
    #: Bytes of the messages.
    buffers: int

    def __init__(
        self, rank: int, ranks: int, bucket: int, microbatches: int, connect: Callable[[_schuss.Shards], int]
    ) -> None:
        self._rank, self._bucket, self._connect, self.microbatches = rank, bucket, connect, microbatches
        self._loads = [0] * ranks
        #: By the identities of parameters, and of state arrays; both are kept alive here.
        self._parts: dict[int, _Part] = {}
        self._stored: dict[int, Stored] = {}

    @contextlib.contextmanager
    def tried(self) -> Iterator[list[Change]]:
        """A context whose changes to the division of arrays are taken back; its list then says how to make them."""
        kept = {name: value.copy() if isinstance(value, (list, dict)) else value for name, value in vars(self).items()}
        changes: list[Change] = []
        try:
            yield changes
            changes += [(self, name, value) for name, value in vars(self).items()]
        finally:
            vars(self).update(kept)

    def check_picklable(self) -> None:
        raise TypeError("a sharded optimizer cannot be copied or pickled; save it to a file, and load that")

    def zeros(
        self,
        params: Sequence[Any],
        states: Sequence[Sequence[formats.State]],
        matrices: Sequence[layout.Matrix | None],
        state_format: formats.StateFormat,
    ) -> list[list[np.ndarray]]:
        for param, matrix in zip(params, matrices, strict=True):
            if id(param) in self._parts:
                continue  # it is cut once, for all that it has
            flat = param.reshape(-1, order=checks.order(param))
            cuts = cut(self._loads, flat.size, _schuss.cut_size(matrix))
            start, stop = cuts[self._rank], cuts[self._rank + 1]
            self._parts[id(param)] = _Part(param, flat[start:stop], cuts, start)
        parts = [self.part(param) for param in params]
        made = layout.zeros(parts, states, state_format, params)
        for param, own, arrays in zip(params, states, made, strict=True):
            rest = iter(arrays)
            for state, dtype in state_format.stored(own, param):
                array = next(rest)
                scales = next(rest) if dtype == "int8" else None
                if state.scope == "element":
                    start = self._parts[id(param)].start
                    self._stored[id(array)] = Stored(array, param.shape, start, checks.order(param))
                    if scales is not None:
                        count = formats.scale_count(param.size)
                        self._stored[id(scales)] = Stored(scales, (count,), formats.scale_count(start), "C")
        return made

    def part(self, param: Any) -> np.ndarray:
        return self._parts[id(param)].view

    def stored(self, array: Any) -> Stored:
        return self._stored.get(id(array)) or super().stored(array)

    def is_part(self, array: Any) -> bool:
        """Whether processes share a state, of which this array has a part."""
        return id(array) in self._stored

    def _shards(self, groups: Sequence[GroupArrays]) -> _schuss.Shards:
        params = [param for group in groups for param in group.params]
        cuts = [self._parts[id(param)].cuts for param in params]
        shards = _schuss.Shards(self._rank, params, cuts, self._bucket, self.microbatches)
        self.buffers = self._connect(shards)
        self.shards = shards
        return shards

    def elements(self, owner: Owner) -> int:
        """The number of elements that this process updates."""
        return sum(self.part(param).size for param in owner._params)
