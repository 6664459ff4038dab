"""Grams."""

from __future__ import annotations

from schuss._core.hyperparameters import Betas, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class Grams(Optimizer):
    r"""Grams: the size of Adam's step in the direction of the gradient.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
       & p \leftarrow p - \frac{\eta}{1 - \beta_1^t} \, \mathrm{sign}(g)
         \frac{|m|}{\sqrt{v} / \sqrt{1 - \beta_2^t} + \epsilon}

    Parameters
    ----------
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled.

    References
    ----------
    Cao, Li and Song, "Grams: gradient descent with adaptive momentum scaling", arXiv:2412.17107.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Grams(w, lr=0.1, eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: float = 1e-6
    weight_decay: WeightDecay = 0.0

    _decay_form = "decoupled"
    _int8 = True
