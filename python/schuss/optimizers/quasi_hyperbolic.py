"""QHM and QHAdam."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from schuss._core.hyperparameters import Betas, ClosedFraction, Momentum, Range, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class QHM(Optimizer):
    r"""Quasi-hyperbolic momentum: a weighted mean of the gradient and its momentum.

    .. math::

       & b \leftarrow \mu b + (1 - \mu) g \\
       & p \leftarrow p - \eta \left((1 - \nu) g + \nu b\right)

    Parameters
    ----------
    momentum : float or callable, default 0.999
        :math:`\mu` in [0, 1).
    nu : float, default 0.7
        :math:`\nu` in [0, 1]: 0 is plain gradient descent, 1 is `SGD` with ``momentum_form="ema"``.

    References
    ----------
    Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", arXiv:1810.06801.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.QHM(w, lr=0.1, momentum=0.5, nu=0.5).step(np.array([4.0, -4.0]))
    True
    >>> w
    array([ 0.7, -1.7])
    """

    lr: Rate = 1e-3
    momentum: Momentum = 0.999
    nu: ClosedFraction = 0.7
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False

    _int8 = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "momentum"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        off = {"velocity": False, "nesterov": False, "debias": False, "dampening": 0.0}
        return {**hypers, **off, "ema": True, "quasi_hyperbolic": True}


class QHAdam(Optimizer):
    r"""Quasi-hyperbolic Adam: both moments are weighted means with the gradient's own.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
       & p \leftarrow p - \eta \frac{(1 - \nu_1) g + \nu_1 m / (1 - \beta_1^t)}
         {\sqrt{(1 - \nu_2) g^2 + \nu_2 v / (1 - \beta_2^t)} + \epsilon}

    With the default it is `Adam`; the authors recommend ``nus=(0.7, 1.0), betas=(0.995, 0.999)``.

    Parameters
    ----------
    nus : pair of float, default (1.0, 1.0)
        :math:`\nu_1, \nu_2` in [0, 1].

    References
    ----------
    Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", arXiv:1810.06801.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.QHAdam(w, lr=0.1, nus=(0.7, 1.0), eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.999)
    nus: Annotated[tuple[float, float], Range(high=1.0, closed_high=True)] = (1.0, 1.0)
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False

    _int8 = True
