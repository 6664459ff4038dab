"""The two-loop recursion of L-BFGS: a direction from a gradient and past steps. It knows no optimizer and no loss."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from schuss._backends import tools

#: The least curvature along a step for a pair to be kept.
_CURVED = 1e-10


class Pair(NamedTuple):
    """A step, how the gradient changed along it, and 1 over their product."""

    s: np.ndarray
    y: np.ndarray
    rho: float


class Sums(NamedTuple):
    """Of each of several vectors: its product with another, that with itself, and its largest absolute value."""

    product: np.ndarray
    square: np.ndarray
    largest: np.ndarray


class History:
    """The last `most` pairs; there were `count` in all."""

    def __init__(self, pairs: list[Pair], count: int, scale: float, most: int) -> None:
        self._pairs, self._most = pairs, most
        self.count = count
        #: The inverse Hessian that the recursion starts from.
        self.scale = scale
        #: Of the pairs, those that were added here, by their numbers.
        self.new: list[tuple[int, Pair]] = []

    def add(self, step: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """Keeps a step with the change of the gradient, if the loss was curved along it.

        The change is written to the memory of the gradient before the step.
        """
        sums = combine([before], -1.0, 1.0, [after], [step])
        product, square = float(sums.product[0]), float(sums.square[0])
        if product > _CURVED:
            pair = Pair(step, before, 1.0 / product)
            self.new = [*self.new, (self.count, pair)][-self._most :]
            self._pairs = [*self._pairs, pair][-self._most :]
            self.count += 1
            self.scale = product / square

    def direction(self, gradient: np.ndarray) -> tuple[np.ndarray, float, float]:
        """The direction, the slope along it, and its largest element.

        Each pass over the vectors computes the next product too.
        """
        pairs, d = self._pairs, np.empty_like(gradient)
        if pairs:
            product, along = _combine_along(d, 0.0, -1.0, gradient, pairs[-1].s), []
            for k in reversed(range(len(pairs))):
                along.append(product * pairs[k].rho)
                scale, following = (1.0, pairs[k - 1].s) if k > 0 else (self.scale, pairs[0].y)
                product = _combine_along(d, scale, -scale * along[-1], pairs[k].y, following)
            for k, (pair, after) in enumerate(itertools.pairwise(pairs)):
                product = _combine_along(d, 1.0, along[-1 - k] - product * pair.rho, pair.s, after.y)
            sums = combine([d], 1.0, along[0] - product * pairs[-1].rho, [pairs[-1].s], [gradient])
        else:
            sums = combine([d], 0.0, -1.0, [gradient], [gradient])
        return d, float(sums.product[0]), float(sums.largest[0])


def _combine_along(vector: np.ndarray, kept: float, factor: float, other: np.ndarray, along: np.ndarray) -> float:
    """``vector = kept*vector + factor*other``, and its product with `along`: one pass."""
    product = np.zeros(())
    tools.run("combine_along", [vector], [kept, factor], grads=[other], states=[[along, product]])
    return float(product)


def combine(
    vectors: Sequence[np.ndarray],
    kept: float,
    factor: float,
    others: Sequence[np.ndarray],
    along: Sequence[np.ndarray],
) -> Sums:
    """``vectors = kept*vectors + factor*others``, and sums of these and their products with `along`: one pass."""
    sums = np.zeros((3, len(vectors)))
    states = [[w, *(own[k : k + 1].reshape(()) for own in sums)] for k, w in enumerate(along)]
    tools.run("combine", vectors, [kept, factor], grads=others, states=states)
    return Sums(*sums)
