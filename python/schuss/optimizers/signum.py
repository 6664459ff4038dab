"""Signum, SignSGD and Tiger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schuss._core.hyperparameters import Fraction, Momentum, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class Signum(Optimizer):
    r"""Signum: the sign of the momentum.

    .. math::

       & m \leftarrow \mu m + (1 - \mu) g \\
       & p \leftarrow p - \eta \, \mathrm{sign}(m)

    Without momentum it is the sign of the gradient, and there is no state. The sign of 0 is 0.

    Parameters
    ----------
    momentum : float or callable, default 0.9
        :math:`\mu` in [0, 1).
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0.

    References
    ----------
    Bernstein et al., "signSGD: compressed optimisation for non-convex problems", arXiv:1802.04434.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Signum(w, lr=0.5).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.5, -1.5])
    """

    lr: Rate = 1e-3
    momentum: Momentum = 0.9
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = True

    _int8 = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "signum" if hypers["momentum"] > 0 else "signsgd"


class SignSGD(Signum):
    r"""SignSGD: the sign of the gradient, :math:`p \leftarrow p - \eta \, \mathrm{sign}(g)`.

    It is `Signum` without momentum. The sign of 0 is 0.

    Parameters
    ----------
    momentum : float or callable, default 0.0
        :math:`\mu` in [0, 1), as for `Signum`.
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0.

    References
    ----------
    Bernstein et al., "signSGD: compressed optimisation for non-convex problems", arXiv:1802.04434.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.SignSGD(w, lr=0.5).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.5, -1.5])
    """

    momentum: Momentum = 0.0


class Tiger(Optimizer):
    r"""Tiger: `Signum` with other defaults, for language models.

    .. math::

       & p \leftarrow (1 - \eta \lambda) p \\
       & m \leftarrow \beta m + (1 - \beta) g \\
       & p \leftarrow p - \eta \, \mathrm{sign}(m)

    Parameters
    ----------
    beta : float, default 0.965
        :math:`\beta` in [0, 1).
    weight_decay : float or callable, default 1e-2
        :math:`\lambda` >= 0, decoupled.

    References
    ----------
    Su, "Tiger: a tight-fisted optimizer", github.com/bojone/tiger, 2023.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Tiger(w, lr=0.5, weight_decay=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.5, -1.5])
    """

    lr: Rate = 1e-3
    beta: Fraction = 0.965
    weight_decay: WeightDecay = 0.01

    _decay_form = "decoupled"
    _int8 = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "signum"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {"momentum": hypers["beta"]}
