"""Adamax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from schuss._core.hyperparameters import Betas, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class Adamax(Optimizer):
    r"""Adamax: Adam with the largest recent gradient in the denominator.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & u \leftarrow \max(\beta_2 u, |g| + \epsilon) \\
       & p \leftarrow p - \frac{\eta}{1 - \beta_1^t} \frac{m}{u}

    Parameters
    ----------
    eps_form : {"torch", "keras"}, default "torch"
        ``"torch"`` is also Optax's form. ``"keras"`` adds :math:`\epsilon` to the divisor:
        :math:`u \leftarrow \max(\beta_2 u, |g|)`, and the step is divided by :math:`u + \epsilon`.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", arXiv:1412.6980, section 7.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Adamax(w, lr=0.1, eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 2e-3
    betas: Betas = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False
    eps_form: Literal["torch", "keras"] = "torch"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {**super()._rule_values(hypers), "keras_eps": hypers["eps_form"] == "keras"}
