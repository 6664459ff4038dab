"""Transforms that replace NaN, add noise or take off means. They know no optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schuss._arrays.layout import of_outputs
from schuss._backends import tools
from schuss._core import validate
from schuss._core.hyperparameters import Layout, check_layout
from schuss.schedules._base import power
from schuss.transforms._base import Prepared, Transform


@dataclass(frozen=True)
class zero_nans(Transform):
    """Sets NaN to 0; infinities stay. `schuss.Transformed.found_nan` then says which arrays had any.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.zeros(2)
    >>> opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [schuss.transforms.zero_nans()])
    >>> opt.step(np.array([np.nan, -0.5]))
    True
    >>> w
    array([0. , 0.5])
    """

    def _prepare(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray]) -> Prepared:
        return tools.job("zero_nans", list(grads.values()))


@dataclass(frozen=True)
class add_noise(Transform):
    r"""Adds normal noise, less in later steps: :math:`g \leftarrow g + \sqrt{\eta / t^\gamma} \, N(0, 1)`.

    The noise of an element depends only on the seed, the step, the places of the element and of the transform, and,
    before `accumulate`, on how many calls there were since the last step. NumPy's Philox, a counter-based generator,
    makes it.

    Parameters
    ----------
    eta : float
        The variance :math:`\eta` in step 1, >= 0.
    gamma : float, default 0.55
        :math:`\gamma` >= 0.
    seed : int, default 0
        In [0, 2**64).

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value.

    References
    ----------
    Neelakantan et al., arXiv:1511.06807.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.zeros(10_000)
    >>> opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [schuss.transforms.add_noise(4.0)])
    >>> opt.step(np.zeros(10_000))
    True
    >>> bool(abs(w.std() - 2.0) < 0.1)
    True
    """

    eta: float
    gamma: float = 0.55
    seed: int = 0

    def __post_init__(self) -> None:
        self._set_checked(
            eta=validate.number("eta", self.eta),
            gamma=validate.number("gamma", self.gamma),
            seed=validate.seed("seed", self.seed),
        )

    def _prepare(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray]) -> Prepared:
        def add(step: int, calls: int, place: int) -> None:
            deviation = math.sqrt(self.eta / power(step, self.gamma))
            for i, array in grads.items():
                key, counter = np.array([self.seed, i], np.uint64), np.array([0, place, calls, step], np.uint64)
                noise = np.random.Generator(np.random.Philox(key=key, counter=counter)).standard_normal(array.shape)
                noise *= deviation
                array += noise.astype(array.dtype, copy=False)

        return add


@dataclass(frozen=True)
class centralize(Transform):
    """Subtracts the mean of each output, as `schuss.centralize_` does; arrays of fewer than two axes are unchanged.

    Parameters
    ----------
    layout : {"in_out", "out_in"}, default "in_out"
        Which axis has the outputs: the last or the first.

    Raises
    ------
    TypeError, ValueError
        It is no such name.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.zeros((2, 2))
    >>> opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [schuss.transforms.centralize()])
    >>> opt.step(np.array([[1.0, 5.0], [3.0, 5.0]]))
    True
    >>> w
    array([[ 1.,  0.],
           [-1.,  0.]])
    """

    layout: Layout = "in_out"

    def __post_init__(self) -> None:
        self._set_checked(layout=check_layout("layout", self.layout))

    def _prepare(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray]) -> Prepared:
        arrays = [array for array in grads.values() if array.ndim > 1]
        return tools.job("centralize", arrays, matrices=[of_outputs(array, self.layout) for array in arrays])
