"""The sums of one process's gradients until it sends them: nodes of the tree in which all gradients are added."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from schuss._arrays import checks, trees
from schuss._core.optimizer import Optimizer


class Sum(NamedTuple):
    """The sum of neighbouring gradients from the `first`: its memory, and the arrays there by their numbers."""

    first: int
    length: int
    memory: np.ndarray
    #: None where the gradients have none.
    arrays: list[np.ndarray | None]

    def structure(self, optimizer: Optimizer) -> Any:
        """The sum in the structure of the parameters."""
        return trees.build(optimizer._root(), self.arrays.__getitem__)


def added(optimizer: Optimizer, sums: Sequence[Sum], number: int, grads: Any, *, partial: bool = False) -> list[Sum]:
    """The sums with one more gradient, which is copied; a pair that begins at a multiple of its length becomes one."""
    new = _copied(optimizer, number, grads, partial)
    result = [*sums, new]
    if sums:
        _check_same(optimizer, sums[-1], new)
    while (
        len(result) > 1 and result[-2].length == result[-1].length and result[-2].first % (2 * result[-1].length) == 0
    ):
        one, other = result[-2:]
        for left, right in zip(one.arrays, other.arrays, strict=True):
            if left is not None and right is not None:
                np.add(left, right, out=right)  # the later one is new, the earlier is needed after an error
        result[-2:] = [other._replace(first=one.first, length=2 * one.length)]
    return result


def all_added(optimizer: Optimizer, numbers: range, gradients: Iterable[Any], partial: bool) -> list[Sum]:
    """The sums of all of a process's gradients."""
    if isinstance(gradients, dict):
        raise TypeError("with microbatches, a closure returns a list of gradients, one for each number, not a dict")
    sums: list[Sum] = []
    given = iter(gradients)
    for number, grads in zip(numbers, given, strict=False):
        sums = added(optimizer, sums, number, grads, partial=partial)
    found = sum(one.length for one in sums) + sum(1 for _ in given)
    if found != len(numbers):
        raise ValueError(f"this process has {len(numbers)} gradients, the microbatches {numbers}, got {found}")
    return sums


def _copied(optimizer: Optimizer, number: int, grads: Any, partial: bool) -> Sum:
    """A gradient in memory of its own, all arrays one after the other."""
    optimizer._explain_structure(grads, partial)
    params = optimizer._params
    dtypes = [checks.compute_dtype(param.dtype) for param in params]
    sizes = [-(-param.size * dtype.itemsize // 8) * 8 for param, dtype in zip(params, dtypes, strict=True)]
    memory = np.empty(sum(sizes) // 8, np.float64).view(np.uint8)
    arrays: list[np.ndarray | None] = [None] * len(params)
    starts = np.cumsum([0, *sizes]).tolist()
    for i, _, gradient in trees.leaves(optimizer._root(), grads, "grads", "params", partial=partial):
        if gradient is None:
            continue
        where, param_place = (optimizer._place(name, *optimizer._suffixes[i]) for name in ("grads", "params"))
        usable = checks.as_gradient(where, gradient, param_place, params[i])
        view = memory[starts[i] : starts[i] + params[i].size * dtypes[i].itemsize].view(dtypes[i])
        array = view.reshape(params[i].shape, order=checks.order(params[i]))
        np.copyto(array, usable, casting="same_kind")
        arrays[i] = array
    return Sum(number, 1, memory, arrays)


def _check_same(optimizer: Optimizer, before: Sum, new: Sum) -> None:
    for i, (one, other) in enumerate(zip(before.arrays, new.arrays, strict=True)):
        if (one is None) != (other is None):
            place = optimizer._place("grads", *optimizer._suffixes[i])
            is_, was = ("None", "is not") if other is None else ("not None", "is")
            raise ValueError(
                f"{place} is {is_}, but {was} in the gradients that it is added to; pass zeros instead, or discard "
                "those with zero_grad()"
            )
