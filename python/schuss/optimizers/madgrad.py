"""MADGRAD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schuss._core.hyperparameters import Momentum, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class MADGRAD(Optimizer):
    r"""MADGRAD: dual averaging from the initial parameters, divided by a cube root, with momentum.

    With :math:`\gamma = (\eta + \epsilon) \sqrt{t}`,

    .. math::

       & v \leftarrow v + \gamma g^2 \\
       & s \leftarrow s + \gamma g \\
       & p \leftarrow \mu p + (1 - \mu) \left(x_0 - \frac{s}{\sqrt[3]{v} + \epsilon}\right)

    The state has three arrays; `x0` are the initial parameters. With a learning rate of 0, :math:`\gamma` is 0: `v` and
    `s` stay, and momentum still moves the parameter.

    Parameters
    ----------
    momentum : float or callable, default 0.9
        :math:`\mu` in [0, 1).
    weight_decay : float or callable, default 0.0
        L2: ``weight_decay * p`` is added to the gradient; or decoupled.
    decoupled_weight_decay : bool, default False
        Subtract ``(lr + eps) * weight_decay * p`` in each step instead, with the `p` from before it, as the authors'
        code does.

    References
    ----------
    Defazio and Jelassi, "Adaptivity without compromise: a momentumized, adaptive, dual averaged gradient method for
    stochastic optimization", arXiv:2101.11075.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.MADGRAD(w, lr=1.0, momentum=0.0, eps=0.0).step(np.array([8.0, -1.0]))
    True
    >>> w
    array([-1., -1.])
    """

    lr: Rate = 1e-2
    momentum: Momentum = 0.9
    eps: float = 1e-6
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        decoupled = hypers["weight_decay"] if hypers["decoupled_weight_decay"] else 0.0
        return {"momentum": hypers["momentum"], "eps": hypers["eps"], "weight_decay": decoupled}

    @classmethod
    def _decay(cls, hypers: Mapping[str, Any]) -> str:
        return "own" if hypers["decoupled_weight_decay"] else "l2"
