"""Copies of an optimizer's gradients, made in one native call. It knows no transform and no wrapper."""

from __future__ import annotations

from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, trees
from schuss._backends import tools
from schuss._core.optimizer import Optimizer


class GradientCopies(_schuss.Core):
    """Arrays for copies of gradients, in the dtype that the update is computed in; `finds_nan`: also which have NaN.

    For the extension module it is an optimizer whose step copies; the optimizer answers what Rust asks.
    """

    def __init__(self, optimizer: Optimizer, finds_nan: bool) -> None:
        self._optimizer = optimizer
        #: The list of parameters that it was made for.
        self.params = optimizer._params
        self.arrays = [
            np.zeros(param.shape, checks.compute_dtype(param.dtype), checks.order(param)) for param in self.params
        ]
        self._written = checks.byte_ranges(self.arrays)
        #: The copies in the structure of the parameters.
        self.tree = trees.build(optimizer._root(), self.arrays.__getitem__)
        count = len(self.arrays)
        #: 1 for each array whose gradient had a NaN when it was last copied.
        self._found = np.zeros(count) if finds_nan else None
        states = [[]] * count if self._found is None else [[own.reshape(())] for own in np.split(self._found, count)]
        rules = [("copy_finding_nan" if finds_nan else "copy", np.array(tools.packed()))]
        group = (rules, [0] * count, self.arrays, states, [None] * count)
        tree = trees.in_order(optimizer._root())
        self._arrangement = _schuss.Arrangement([group], tree, None, False, None, [])

    def found_nan(self) -> Any:
        """Which gradients of the last call had a NaN, in the structure of the parameters; None without `finds_nan`."""
        if self._found is None:
            return None
        found, present = self._found != 0.0, self._present
        there = range(len(found)) if present is None else present
        return trees.build(self._optimizer._root(), lambda i: i in there and bool(found[i]))

    def _gradient(self, i: int, gradient: Any, _: bool, zero_grads: bool) -> np.ndarray:
        usable = self._optimizer._gradient(i, gradient, False, zero_grads)
        return usable.copy(checks.order(usable)) if checks.overlaps(self._written, usable) else usable

    def _look_again(self) -> list[Any]:
        return []

    def _explain_structure(self, grads: Any, partial: bool) -> None:
        self._optimizer._explain_structure(grads, partial)
