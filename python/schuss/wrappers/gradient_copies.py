"""Copies of an optimizer's gradients, made in one native call. It knows no transform and no wrapper."""

from __future__ import annotations

from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, trees
from schuss._backends import tools
from schuss._core.optimizer import Optimizer


class GradientCopies(_schuss.Core):
    """Arrays for copies of gradients, in the dtype that the update is computed in.

    For the extension module it is an optimizer whose step copies; the optimizer answers what Rust asks.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        #: The list of parameters that it was made for.
        self.params = optimizer._params
        self.arrays = [
            np.zeros(param.shape, checks.compute_dtype(param.dtype), checks.order(param)) for param in self.params
        ]
        self._written = checks.byte_ranges(self.arrays)
        #: The copies in the structure of the parameters.
        self.tree = trees.build(optimizer._root(), self.arrays.__getitem__)
        rules, count = [("copy", np.array(tools.packed()))], len(self.arrays)
        no_states: list[list[np.ndarray]] = [[]] * count
        group = (rules, [0] * count, self.arrays, no_states, [None] * count)
        tree = trees.in_order(optimizer._root())
        self._arrangement = _schuss.Arrangement([group], tree, None, False, None, [])

    def _gradient(self, i: int, gradient: Any, _: bool, zero_grads: bool) -> np.ndarray:
        usable = self._optimizer._gradient(i, gradient, False, zero_grads)
        return usable.copy(checks.order(usable)) if checks.overlaps(self._written, usable) else usable

    def _look_again(self) -> list[Any]:
        return []

    def _explain_structure(self, grads: Any, partial: bool) -> None:
        self._optimizer._explain_structure(grads, partial)
