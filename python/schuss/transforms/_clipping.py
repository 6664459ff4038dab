"""Transforms that bound gradients: their elements, or norms of theirs. They know no optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schuss import _schuss
from schuss._arrays.layout import Matrix, of_outputs
from schuss._backends import tools
from schuss._core import validate
from schuss._core.hyperparameters import Layout, check_layout
from schuss.transforms._base import Prepared, Transform


@dataclass(frozen=True)
class agc(Transform):
    r"""Adaptive gradient clipping: bounds the gradient's norm relative to the parameter's, for each output.

    .. math:: g \leftarrow g \, \frac{m}{\max(\lVert g \rVert, 10^{-6})} \text{ if } \lVert g \rVert \ge m, \qquad
       m = c \, \max(\lVert p \rVert, \epsilon)

    with the norms over all axes but that of the outputs; over the whole array if it has only one axis longer than 1.
    Gradients whose norm is infinite, in float32 from about 1e19 on, become 0: bound them by `clip` before.

    Parameters
    ----------
    clipping : float, default 0.01
        :math:`c` > 0.
    eps : float, default 1e-3
        :math:`\epsilon` >= 0.
    layout : {"in_out", "out_in"}, default "in_out"
        Which axis has the outputs: the last of ``(...k, in, out)``, or the first of ``(out, in, k...)``.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value.

    References
    ----------
    Brock et al., arXiv:2102.06171. Optax's ``adaptive_grad_clip``, except for arrays of three axes.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([3.0, 4.0])
    >>> opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [schuss.transforms.agc(0.5)])
    >>> opt.step(np.array([30.0, 40.0]))
    True
    >>> w
    array([1.5, 2. ])
    """

    clipping: float = 0.01
    eps: float = 1e-3
    layout: Layout = "in_out"

    def __post_init__(self) -> None:
        self._set_checked(
            clipping=validate.number("clipping", self.clipping, open_low=True),
            eps=validate.number("eps", self.eps),
            layout=check_layout("layout", self.layout),
        )

    def _matrix(self, array: np.ndarray) -> Matrix:
        if sum(n != 1 for n in array.shape) < 2:
            return 1, 1, array.size, False, 1
        return of_outputs(array, self.layout)

    def _prepare(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray]) -> Prepared:
        own = [i for i, array in grads.items() if array.size]
        arrays = [grads[i] for i in own]
        matrices = [self._matrix(array) for array in arrays]

        def job() -> _schuss.Job:
            values = [self.clipping, self.eps]
            return tools.job("clip_adaptively", arrays, values, grads=[params[i] for i in own], matrices=matrices)

        # A job reads a subclass's memory through a view, which does not notice that the array was resized.
        if any(type(params[i]) is not np.ndarray for i in own):
            return lambda *_: job().run()
        return job()


@dataclass(frozen=True)
class clip_by_block_rms(Transform):
    r"""Bounds the root mean square of each array: :math:`g \leftarrow g / \max(1, \mathrm{rms}(g) / \tau)`.

    Parameters
    ----------
    threshold : float
        :math:`\tau` > 0.

    Raises
    ------
    TypeError, ValueError
        It is not such a number.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.zeros(2)
    >>> opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [schuss.transforms.clip_by_block_rms(1.0)])
    >>> opt.step(np.array([4.0, -4.0]))
    True
    >>> w
    array([-1.,  1.])
    """

    threshold: float

    def __post_init__(self) -> None:
        self._set_checked(threshold=validate.number("threshold", self.threshold, open_low=True))

    def _prepare(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray]) -> Prepared:
        return tools.job("clip_rms", [array for array in grads.values() if array.size], [self.threshold])


@dataclass(frozen=True)
class clip_by_global_norm(Transform):
    """Bounds the norm of all gradients together; without the 1e-6 in the denominator that ``max_grad_norm`` has.

    Parameters
    ----------
    max_norm : float
        The bound, > 0.

    Raises
    ------
    TypeError, ValueError
        It is not such a number.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.zeros(2)
    >>> opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [schuss.transforms.clip_by_global_norm(1.0)])
    >>> opt.step(np.array([3.0, -4.0]))
    True
    >>> w
    array([-0.6,  0.8])
    """

    max_norm: float

    def __post_init__(self) -> None:
        self._set_checked(max_norm=validate.number("max_norm", self.max_norm, open_low=True))

    def _prepare(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray]) -> Prepared:
        arrays = list(grads.values())
        scale = tools.job("scale", arrays, [1.0])

        def bound(*_: int) -> None:
            squares, unit = _schuss.sum_of_squares(arrays)
            norm = math.sqrt(squares) * unit
            if not norm < self.max_norm:
                scale.set(tools.packed([self.max_norm / norm]))
                scale.run()

        return bound


@dataclass(frozen=True)
class clip(Transform):
    """Clips every element to [-max_delta, max_delta]; NaN stays.

    Parameters
    ----------
    max_delta : float
        The bound, >= 0.

    Raises
    ------
    TypeError, ValueError
        It is not such a number.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.zeros(2)
    >>> opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [schuss.transforms.clip(1.0)])
    >>> opt.step(np.array([3.0, -0.5]))
    True
    >>> w
    array([-1. ,  0.5])
    """

    max_delta: float

    def __post_init__(self) -> None:
        self._set_checked(max_delta=validate.number("max_delta", self.max_delta))

    def _prepare(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray]) -> Prepared:
        return tools.job("clamp", list(grads.values()), [self.max_delta])
