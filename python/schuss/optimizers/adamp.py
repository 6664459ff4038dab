"""AdamP and SGDP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from schuss._arrays.layout import Matrix, of_outputs
from schuss._core.hyperparameters import Betas, ClosedFraction, Momentum, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class _Projected(Optimizer):
    """Arrays of more than one dimension are projected, by rows of their first axis."""

    _decay_form = "own"

    @classmethod
    def _array_rule(cls, hypers: Mapping[str, Any], array: np.ndarray) -> str:
        return cls._rule(hypers) if array.ndim > 1 else f"{cls._rule(hypers)}_vector"

    @classmethod
    def _matrix(cls, hypers: Mapping[str, Any], array: np.ndarray) -> Matrix:
        return of_outputs(array, "out_in")


class AdamP(_Projected):
    r"""AdamP: Adam for weights whose scale does not matter, as before a normalization.

    A step along such weights only makes them longer, and later steps smaller. Of an array with more than one dimension
    that has shape ``(out, in, ...)``, let rows be those of ``(out, -1)``. If for all rows

    .. math::

       \frac{|g \cdot p|}{\max(\|g\|, \epsilon) \max(\|p\|, \epsilon)} < \frac{\delta}{\sqrt{n}}

    where :math:`n` is the row's length, their step has no component along their weights:

    .. math::

       & u = \frac{m}{\sqrt{v} / \sqrt{1 - \beta_2^t} + \epsilon}, \quad m, v \text{ as in Adam} \\
       & u \leftarrow u - \frac{u \cdot p}{(\|p\| + \epsilon)^2} p \\
       & p \leftarrow (1 - \eta \lambda r) p - \frac{\eta}{1 - \beta_1^t} u

    with :math:`r` = `wd_ratio`. Otherwise, if it holds for the array as one row, the same is done with that; otherwise
    :math:`u` stays and :math:`r` is 1, as for all arrays of one dimension. pytorch_optimizer adds
    :math:`\epsilon` before the correction of the bias.

    Sums are taken in memory order: they do not depend on CPU or threads, but an array in Fortran order may differ in
    the last bits from one with the same values in C order.

    Parameters
    ----------
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled.
    delta : float, default 0.1
        :math:`\delta` >= 0; 0 never projects.
    wd_ratio : float, default 0.1
        :math:`r` >= 0.
    nesterov : bool, default False
        :math:`\beta_1 m + (1 - \beta_1) g` in place of :math:`m` in :math:`u`.

    References
    ----------
    Heo et al., "AdamP: slowing down the slowdown for momentum optimizers on scale-invariant weights", arXiv:2006.08217.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> schuss.AdamP(w, lr=0.1, eps=0.0).step(np.array([[0.01, 3.0], [-4.0, 0.01]]))
    True
    >>> w
    array([[ 1. , -0.1],
           [ 0.1,  1. ]])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    delta: float = 0.1
    wd_ratio: float = 0.1
    nesterov: bool = False

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {**super()._rule_values(hypers), "dampening": 0.0}


class SGDP(_Projected):
    r"""SGDP: momentum for weights whose scale does not matter; `AdamP` says when and how steps are projected.

    .. math::

       & b \leftarrow \mu b + (1 - d) g \\
       & u = b, \quad \text{or with nesterov} \quad u = g + \mu b \\
       & p \leftarrow \left(1 - \frac{\eta \lambda r}{1 - \mu}\right) p - \eta u

    with the dampening :math:`d`, which acts from the first step on, and :math:`u` projected as in `AdamP`. The authors'
    package also projects the buffer if `nesterov` is off; here, in timm and in pytorch_optimizer it stays.

    Parameters
    ----------
    momentum : float or callable, default 0.0
        :math:`\mu` in [0, 1).
    dampening : float, default 0.0
        :math:`d` in [0, 1].
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled.
    delta : float, default 0.1
        :math:`\delta` >= 0; 0 never projects.
    wd_ratio : float, default 0.1
        :math:`r` >= 0.
    nesterov : bool, default False
        Nesterov momentum.

    References
    ----------
    Heo et al., "AdamP: slowing down the slowdown for momentum optimizers on scale-invariant weights", arXiv:2006.08217.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> schuss.SGDP(w, lr=0.1).step(np.array([[0.01, 3.0], [-4.0, 0.01]]))
    True
    >>> w
    array([[ 1. , -0.3],
           [ 0.4,  1. ]])
    """

    lr: Rate = 1e-3
    momentum: Momentum = 0.0
    dampening: ClosedFraction = 0.0
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    delta: float = 0.1
    wd_ratio: float = 0.1
    nesterov: bool = False

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {**super()._rule_values(hypers), "beta1": hypers["momentum"], "beta2": 0.0}
