"""Gradient transforms: what happens to gradients before an optimizer's step, given as a list to `schuss.Transformed`.

Each is a small frozen object; the classes have lower-case names because they are used like functions. They know arrays,
but no optimizer. `layer_lrs` makes groups with learning rates of their own.

>>> import numpy as np, schuss
>>> from schuss import transforms
>>> w = np.ones(2)
>>> opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [transforms.zero_nans(), transforms.clip(0.5)])
>>> opt.step(np.array([np.nan, 3.0]))
True
>>> w
array([1. , 0.5])
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays import trees
from schuss._arrays.layout import Matrix, of_outputs
from schuss._backends import tools
from schuss._core import validate
from schuss._core.hyperparameters import Layout, Seed, check_of
from schuss.schedules import scale

__all__ = [
    "Transform",
    "accumulate",
    "add_noise",
    "agc",
    "apply_if_finite",
    "centralize",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "layer_lrs",
    "zero_nans",
]

_LAYOUT = check_of(Layout)
_SEED = check_of(Seed)


class Transform(ABC):
    """The base class of all transforms.

    Examples
    --------
    >>> from schuss import transforms
    >>> isinstance(transforms.clip(1.0), transforms.Transform)
    True
    """

    @abstractmethod
    def _apply(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray], step: int) -> None:
        """Changes gradients, by the number of their parameter, in place; the first step is 1."""

    def _set_checked(self, **checked: Any) -> None:
        """Replaces fields by their checked values, which a frozen dataclass allows only this way."""
        for name, value in checked.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class agc(Transform):
    r"""Adaptive gradient clipping: bounds the gradient's norm relative to the parameter's, for each output.

    .. math:: g \leftarrow g \, \frac{m}{\max(\lVert g \rVert, 10^{-6})} \text{ if } \lVert g \rVert \ge m, \qquad
       m = c \, \max(\lVert p \rVert, \epsilon)

    with the norms over all axes but that of the outputs; over the whole array if it has only one axis longer than 1.

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
            layout=_LAYOUT("layout", self.layout),
        )

    def _matrix(self, array: np.ndarray) -> Matrix:
        if sum(n != 1 for n in array.shape) < 2:
            return 1, 1, array.size, False, 1
        return of_outputs(array, self.layout)

    def _apply(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray], step: int) -> None:
        own = {i: array for i, array in grads.items() if array.size}
        matrices = [self._matrix(array) for array in own.values()]
        values = [self.clipping, self.eps]
        tools.run("clip_adaptively", list(own.values()), values, grads=[params[i] for i in own], matrices=matrices)


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

    def _apply(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray], step: int) -> None:
        tools.run("clip_rms", [array for array in grads.values() if array.size], [self.threshold])


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

    def _apply(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray], step: int) -> None:
        squares, unit = _schuss.sum_of_squares(list(grads.values()))
        norm = math.sqrt(squares) * unit
        if not norm < self.max_norm:
            tools.run("scale", list(grads.values()), [self.max_norm / norm])


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

    def _apply(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray], step: int) -> None:
        tools.run("clamp", list(grads.values()), [self.max_delta])


@dataclass(frozen=True)
class zero_nans(Transform):
    """Sets NaN to 0; infinities stay.

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

    def _apply(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray], step: int) -> None:
        tools.run("zero_nans", list(grads.values()), [0.0])  # a value that only its neighbour in the rules reads


@dataclass(frozen=True)
class add_noise(Transform):
    r"""Adds normal noise, less in later steps: :math:`g \leftarrow g + \sqrt{\eta / t^\gamma} \, N(0, 1)`.

    The noise of an element depends on the seed, the step, and the element's place, and on nothing else: NumPy's Philox
    generator counts.

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
            seed=_SEED("seed", self.seed),
        )

    def _apply(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray], step: int) -> None:
        deviation = math.sqrt(self.eta / step**self.gamma)
        for i, array in grads.items():
            key, counter = np.array([self.seed, i], np.uint64), np.array([0, 0, 0, step], np.uint64)
            noise = np.random.Generator(np.random.Philox(key=key, counter=counter)).standard_normal(array.shape)
            noise *= deviation
            array += noise.astype(array.dtype, copy=False)


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
        self._set_checked(layout=_LAYOUT("layout", self.layout))

    def _apply(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray], step: int) -> None:
        arrays = [array for array in grads.values() if array.ndim > 1]
        tools.run("centralize", arrays, matrices=[of_outputs(array, self.layout) for array in arrays])


class Gate(Transform):
    """The base of transforms that decide whether there is a step; they have a counter, which is saved."""

    def _apply(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray], step: int) -> None:
        """Nothing: what a gate does depends on its counter."""


@dataclass(frozen=True)
class accumulate(Gate):
    """Takes a step at every k-th call only, with the mean of the gradients of k calls.

    In between nothing but the mean changes, ``step`` returns False, and no step is counted. What comes before it in the
    list happens in every call, what comes after it in every k-th.

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
        self._set_checked(k=validate.count("k", self.k))


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
        self._set_checked(max_consecutive_errors=validate.count(name, self.max_consecutive_errors, 0))


def _search(pattern: str, place: str) -> bool:
    try:
        return re.search(pattern, place) is not None
    except re.error as why:
        raise ValueError(f"factors[{pattern!r}] is neither a part of {place} nor a regular expression: {why}") from None


def layer_lrs(params: Any, factors: Mapping[str, float], lr: Any) -> list[dict[str, Any]]:
    """Groups with a learning rate of their own for each layer, for any optimizer.

    Parameters
    ----------
    params : array, list, tuple or dict
        The parameters.
    factors : dict
        What `lr` is multiplied by, >= 0, for regular expressions that are searched for in an array's path, such as
        ``"['encoder'][0]"`` for the path ``['encoder'][0]['w']``. The first one that is found counts; arrays without
        any have `lr` itself. For decay by layer, let the factor of layer l of L be ``decay ** (L - l)``.
    lr : float or callable
        The learning rate, or a schedule.

    Returns
    -------
    list of dict
        A group dict for each factor in use, whose ``params`` are a dict from an array's path to the array; pass
        gradients in the same structure.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value.

    Examples
    --------
    >>> import numpy as np
    >>> from schuss import transforms
    >>> groups = transforms.layer_lrs({"body": np.ones(2), "head": np.ones(2)}, {"body": 0.5}, lr=0.1)
    >>> [(list(group["params"]), group["lr"]) for group in groups]
    [(["['body']"], 0.05), (["['head']"], 0.1)]
    """
    if not isinstance(factors, Mapping):
        raise TypeError(f"factors must be a dict from patterns to factors, got {trees.kind(factors)}")
    rate: Any = validate.rate("lr", lr)
    for pattern in factors:
        if not isinstance(pattern, str):
            raise TypeError(f"the patterns of factors must be strings, got {pattern!r}")
    checked = [(pattern, validate.number(f"factors[{pattern!r}]", value)) for pattern, value in factors.items()]
    _, leaves = trees.flatten(params, "params")
    if len({place for place, _ in leaves}) < len(leaves):
        raise ValueError("two keys of params have the same repr, which names arrays here; make groups of your own")
    groups: dict[float, dict[str, Any]] = {}
    for place, array in leaves:
        found = (value for pattern, value in checked if pattern in place or _search(pattern, place))
        groups.setdefault(next(found, 1.0), {})[place] = array

    def times(factor: float) -> Any:
        if factor == 1.0:
            return rate
        return scale(rate, factor) if validate.is_schedule(rate) else rate * factor

    return [{"params": own, "lr": times(factor)} for factor, own in groups.items()]
