"""Adai."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schuss._core.hyperparameters import Betas, ClosedFraction, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class Adai(Optimizer):
    r"""Adai: momentum that is smaller for elements with large gradients; the learning rate is the same for all.

    .. math::

       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad \hat v = \frac{v}{1 - \beta_2^t} \\
       & c = \min\left(\max\left(\beta_0 \left(\frac{\hat v}{\bar v}\right)^{1 / (3 - 2 d)}, \epsilon\right),
         1\right), \quad \bar v = \max(\operatorname{mean}(\hat v), 10^{-3}) \\
       & m \leftarrow (1 - c) m + c^d g \\
       & w \leftarrow (1 - c) w + c \\
       & p \leftarrow p - \eta \beta_0^{1 - d} \frac{m}{w}

    with the dampening :math:`d`. The momentum of an element is :math:`1 - c`, and the mean is over all elements of all
    arrays that have a gradient in the step. The state `w` is one minus the product of all momenta so far.

    Parameters
    ----------
    betas : pair of float or callable, default (0.1, 0.99)
        :math:`\beta_0, \beta_2` in [0, 1).
    eps : float, default 1e-3
        :math:`\epsilon` >= 0, the least :math:`c`.
    dampening : float, default 1.0
        :math:`d` in [0, 1]. With 1, as in the paper, `m` is a mean; less needs two powers for each element, which take
        time.

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

    _fixed_momentum = "computes its momentum itself"
    _single_rule = False

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {**super()._rule_values(hypers), "beta0": hypers["betas"][0]}
