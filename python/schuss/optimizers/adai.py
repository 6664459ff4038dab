"""Adai."""

from __future__ import annotations

from schuss._core.hyperparameters import Betas, ClosedFraction, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class Adai(Optimizer):
    r"""Adai: momentum that is smaller for elements with large gradients; the learning rate is the same for all.

    .. math::

       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad \hat v = \frac{v}{1 - \beta_2^t} \\
       & c = \min\left(\max\left(\beta_0 \left(\frac{\hat v}{\bar v}\right)^{1 / (3 - 2 \kappa)}, \epsilon\right),
         1\right), \quad \bar v = \max(\operatorname{mean}(\hat v), 10^{-3}) \\
       & m \leftarrow (1 - c) m + c^\kappa g \\
       & w \leftarrow (1 - c) w + c \\
       & p \leftarrow p - \eta \beta_0^{1 - \kappa} \frac{m}{w}

    :math:`1 - c` is the momentum of an element, and the mean is over all elements of all arrays. The state `w` is one
    minus the product of all momenta so far.

    Parameters
    ----------
    betas : pair of float, default (0.1, 0.99)
        :math:`\beta_0, \beta_2` in [0, 1).
    eps : float, default 1e-3
        :math:`\epsilon` >= 0, the least :math:`c`.
    dampening : float, default 1.0
        :math:`\kappa` in [0, 1]: how much of :math:`c` multiplies the gradient. With 1, as in the paper, `m` is a mean;
        less needs two powers for each element, which take time.

    References
    ----------
    Xie et al., "Adaptive inertia: disentangling the effects of adaptive learning rate and momentum", arXiv:2006.15815.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Adai(w, lr=0.1).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.7, -1.6])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.1, 0.99)
    eps: float = 1e-3
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False
    dampening: ClosedFraction = 1.0

    _single_rule = False
