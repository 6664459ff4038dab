"""Yogi."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schuss._core.hyperparameters import Betas, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class Yogi(Optimizer):
    r"""Yogi: Adam whose second moment changes by the size of the gradient only, not by its own.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & v \leftarrow v - (1 - \beta_2) \, \mathrm{sign}(v - g^2) \, g^2 \\
       & p \leftarrow p - \frac{\eta}{1 - \beta_1^t} \frac{m}{\sqrt{v} / \sqrt{1 - \beta_2^t} + \epsilon}

    Parameters
    ----------
    initial_accumulator_value : float, default 1e-6
        Initial value of :math:`v`, >= 0.
    initial_momentum : float, optional
        Initial value of :math:`m`, >= 0; by default that of :math:`v`, as in all other
        implementations. The paper has 0.

    References
    ----------
    Zaheer et al., "Adaptive methods for nonconvex optimization", NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Yogi(w, lr=0.1, eps=0.0, initial_accumulator_value=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 1e-2
    betas: Betas = (0.9, 0.999)
    eps: float = 1e-3
    initial_accumulator_value: float = 1e-6
    initial_momentum: float | None = None
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False

    _int8 = True

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        values = dict(super()._rule_values(hypers))
        if hypers["initial_momentum"] is None:
            values["initial_momentum"] = hypers["initial_accumulator_value"]
        return values
