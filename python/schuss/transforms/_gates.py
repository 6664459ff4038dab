"""Transforms that decide whether there is a step. They know no array and no optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schuss._core import validate
from schuss.transforms._base import Transform


class Gate(Transform):
    """The base of transforms that decide whether there is a step; they have a counter, which is saved."""

    def _prepare(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray]) -> None:
        """Nothing: what a gate does depends on its counter."""


@dataclass(frozen=True)
class accumulate(Gate):
    """Takes a step at every k-th call only, with the mean of the gradients of k calls.

    In between nothing but the mean changes, ``step`` returns False, and no step is counted. What comes before it in the
    list happens in every call, what comes after it in every k-th. With ``nonfinite="error"`` a call whose gradients,
    at this place in the list, have a NaN or an infinity raises ``FloatingPointError``, so that none gets into the
    mean; put `zero_nans` (for NaN) or `apply_if_finite` before it to go on instead.

    Parameters
    ----------
    k : int
        Calls for each step, >= 1.

    Raises
    ------
    TypeError, ValueError
        It is not such a number.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.zeros(1)
    >>> opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [schuss.transforms.accumulate(2)])
    >>> opt.step(np.array([1.0])), opt.step(np.array([3.0]))
    (False, True)
    >>> w
    array([-2.])
    """

    k: int

    def __post_init__(self) -> None:
        self._set_checked(k=validate.whole_number("k", self.k, 1))

    @property
    def _most_counted(self) -> float:
        return self.k - 1


@dataclass(frozen=True)
class apply_if_finite(Gate):
    """Skips steps whose gradients have a NaN or an infinity, unless too many in a row have.

    Parameters
    ----------
    max_consecutive_errors : int
        How many steps in a row may be skipped, >= 0; the next one is taken with its gradients as they are.

    Raises
    ------
    TypeError, ValueError
        It is not such a number.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.zeros(1)
    >>> opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [schuss.transforms.apply_if_finite(1)])
    >>> opt.step(np.array([np.inf])), opt.step(np.array([1.0]))
    (False, True)
    >>> w
    array([-1.])
    """

    max_consecutive_errors: int

    def __post_init__(self) -> None:
        name = "max_consecutive_errors"
        self._set_checked(max_consecutive_errors=validate.whole_number(name, self.max_consecutive_errors))

    @property
    def _most_counted(self) -> float:
        return math.inf
