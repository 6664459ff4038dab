"""RMSprop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schuss._core.hyperparameters import Fraction, Momentum, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class RMSprop(Optimizer):
    r"""RMSprop: gradients divided by a running root mean square.

    .. math::

       & v \leftarrow \alpha v + (1 - \alpha) g^2 \\
       & p \leftarrow p - \eta \frac{g}{\sqrt{d} + \epsilon}

    with :math:`d = v`; ``centered`` keeps :math:`a \leftarrow \alpha a + (1 - \alpha) g` too and uses
    :math:`d = \max(v - a^2, 0)`. With momentum :math:`b \leftarrow \mu b + g / (\sqrt{d} + \epsilon)` and
    :math:`p \leftarrow p - \eta b`.

    PyTorch does not clamp the centered variance at zero, and returns NaN if rounding makes it negative.
    TensorFlow's form is ``alpha=0.9, initial_square_avg=1.0, eps_inside_sqrt=True, lr_in_momentum=True``.

    Parameters
    ----------
    alpha : float, default 0.99
        Smoothing constant :math:`\alpha` in [0, 1).
    momentum : float or callable, default 0.0
        :math:`\mu` in [0, 1).
    centered : bool, default False
        Divide by the standard deviation instead of the root mean square.
    eps_inside_sqrt : bool, default False
        Divide by :math:`\sqrt{d + \epsilon}` instead.
    lr_in_momentum : bool, default False
        Multiply by the learning rate before the buffer: :math:`b \leftarrow \mu b + \eta g / (\ldots)`,
        :math:`p \leftarrow p - b`.
    initial_square_avg : float, default 0.0
        Initial value of :math:`v`, >= 0.

    References
    ----------
    Hinton, Neural Networks for Machine Learning, lecture 6e, 2012. Centered: Graves, arXiv:1308.0850.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.RMSprop(w, lr=0.1, alpha=0.75, eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.8, -1.8])
    """

    lr: Rate = 1e-2
    alpha: Fraction = 0.99
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    momentum: Momentum = 0.0
    centered: bool = False
    eps_inside_sqrt: bool = False
    lr_in_momentum: bool = False
    initial_square_avg: float = 0.0

    _by_rows = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        kind = "rmsprop_centered" if hypers["centered"] else "rmsprop"
        return f"{kind}_momentum" if hypers["momentum"] > 0 else kind
