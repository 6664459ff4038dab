"""Adadelta."""

from __future__ import annotations

from schuss._core.hyperparameters import Fraction, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class Adadelta(Optimizer):
    r"""Adadelta: gradients times the running root mean square of earlier steps, divided by that of gradients.

    .. math::

       & v \leftarrow \rho v + (1 - \rho) g^2 \\
       & d = \frac{\sqrt{u + \epsilon}}{\sqrt{v + \epsilon}} g \\
       & u \leftarrow \rho u + (1 - \rho) d^2 \\
       & p \leftarrow p - \eta d

    Parameters
    ----------
    rho : float, default 0.9
        :math:`\rho` in [0, 1).
    eps : float, default 1e-6
        :math:`\epsilon` >= 0. The first step is about :math:`\sqrt{\epsilon / (1 - \rho)}`.

    References
    ----------
    Zeiler, "ADADELTA: an adaptive learning rate method", arXiv:1212.5701.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Adadelta(w, rho=0.75, eps=0.01).step(np.array([3.0, -4.0]))
    True
    >>> w.round(3)
    array([ 0.8, -1.8])
    """

    lr: Rate = 1.0
    rho: Fraction = 0.9
    eps: float = 1e-6
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False

    _int8 = True
    _by_rows = True
    _eps_in_square = True
