"""AdaBound and AMSBound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schuss._core.hyperparameters import Betas, Positive, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class AdaBound(Optimizer):
    r"""AdaBound: Adam whose rates are clipped to bounds that approach one final rate.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
       & \hat\eta = \mathrm{clip}\left(\eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{1}{\sqrt{v} + \epsilon}, \;
         F \left(1 - \frac{1}{\gamma t + 1}\right), \; F \left(1 + \frac{1}{\gamma t}\right)\right) \\
       & p \leftarrow p - \hat\eta \, m

    with :math:`F = \eta_F \, \eta / \eta_0`, where :math:`\eta_0` is the first learning rate: the final rate follows a
    schedule.

    Parameters
    ----------
    final_lr : float, default 0.1
        :math:`\eta_F` >= 0, the rate of gradient descent in the end.
    gamma : float, default 1e-3
        :math:`\gamma` > 0, how fast the bounds approach it.
    amsbound : bool, default False
        Divide by the largest :math:`v` so far.

    References
    ----------
    Luo et al., "Adaptive gradient methods with dynamic bound of learning rate", arXiv:1902.09843.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.AdaBound(w, lr=0.1, eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.999)
    final_lr: float = 0.1
    gamma: Positive = 1e-3
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False
    amsbound: bool = False

    _int8 = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "amsbound" if hypers["amsbound"] else "adabound"

    @classmethod
    def _by_first_rate(cls, hypers: Mapping[str, Any]) -> str | None:
        return "final_lr"
