"""Parameters whose axes lie in memory in another order, as in channels-last: the package gets them in that order.

That is the same for rules that work element by element, and for norms of whole arrays. What depends on axes is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from schuss._arrays import trees
from schuss._core.optimizer import Optimizer
from schuss._core.rules import RULES
from schuss.torch import _tensors


def permuted(axes: Sequence[int]) -> bool:
    """Whether axes lie in memory in another order."""
    return list(axes) != list(range(len(axes)))


def check_rules(optimizer: Optimizer, places: Sequence[str], axes: Sequence[Sequence[int]]) -> None:
    """Raises if a step depends on the axes of a parameter, and these lie in memory in another order."""
    found = [(group, k) for group in optimizer.param_groups for k in range(len(group.rules))]
    for place, own, (group, k) in zip(places, axes, found, strict=True):
        if not permuted(own):
            continue
        rule = RULES[group.rules[k]]
        by_axes = rule.needs_matrix or any(state.scope == "own" for state in group.states[k])
        if rule.scratch:  # for products with a matrix of one axis and all others, which may have any order
            outputs = 0 if group["layout"] == "out_in" else len(own) - 1
            by_axes = by_axes or own[outputs] != outputs
        if by_axes:
            raise ValueError(
                f"{place} has its axes in another order in memory, as in channels-last, but {type(optimizer).__name__} "
                "works on matrices; make it contiguous"
            )


def arguments(name: str, given: Any, places: Sequence[str], axes: Sequence[Sequence[int]]) -> Any:
    """A method's arguments with arrays in the place of tensors."""
    values = given.values() if isinstance(given, Mapping) else given
    if any(isinstance(value, (list, tuple, dict)) or getattr(value, "ndim", 0) for value in values):
        for place, own in zip(places, axes, strict=True):
            if permuted(own):
                raise ValueError(
                    f"{name} takes arrays with the axes of the parameters, but {place} has its own in another order in "
                    "memory, as in channels-last; make it contiguous"
                )
    return _tensors.arrays(given)


def result(found: Any, axes: Sequence[Sequence[int]]) -> Any:
    """A method's result with tensors in the place of arrays; one for each parameter have its axes."""
    template, leaves = trees.flatten(_tensors.tensors(found), "the result")
    if len(leaves) != len(axes):
        return _tensors.tensors(found)

    def shown(i: int) -> Any:
        leaf = leaves[i][1]
        return own_order(leaf, axes[i]) if hasattr(leaf, "permute") else leaf

    return trees.build(template, shown)


def own_order(tensor: Any, axes: Sequence[int]) -> Any:
    """A tensor with one axis for each of a parameter's, in the parameter's order instead of that in memory."""
    return tensor.permute(tuple(np.argsort(axes).tolist())) if permuted(axes) and tensor.dim() == len(axes) else tensor
