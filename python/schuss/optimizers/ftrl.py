"""FTRL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schuss._core.hyperparameters import Falling, Rate
from schuss._core.optimizer import Optimizer


class FTRL(Optimizer):
    r"""FTRL-Proximal: follow the regularized leader, with penalties that make parameters exactly zero.

    With :math:`k = -\mathrm{lr\_power}`,

    .. math::

       & \sigma = \frac{(n + g^2)^k - n^k}{\eta} \\
       & n \leftarrow n + g^2 \\
       & z \leftarrow z + g - \sigma p \\
       & p \leftarrow \begin{cases} 0 & \text{if } |z| \le \lambda_1 \\
         \dfrac{\lambda_1 \operatorname{sign}(z) - z}{(n^k + \beta) / \eta + \lambda_2} & \text{otherwise} \end{cases}

    Each step computes the parameter from `z`, so its initial value is forgotten at the first step, except for the part
    that an ``initial_accumulator_value`` > 0 carries into `z`. A learning rate of 0 changes nothing.

    Parameters
    ----------
    lr_power : float, default -0.5
        The power of `n` that divides the learning rate, <= 0. The default takes a square root and is faster than other
        values.
    initial_accumulator_value : float, default 0.1
        Initial value of `n`, >= 0.
    l1, l2 : float, default 0.0
        :math:`\lambda_1` and :math:`\lambda_2`, >= 0. Keras's ``l2_regularization_strength`` is half of `l2`.
    l2_shrinkage : float, default 0.0
        Add ``2 * l2_shrinkage * p`` to the gradient in `z`, but not in `n`; >= 0.
    beta : float, default 0.0
        :math:`\beta` >= 0.

    References
    ----------
    McMahan et al., "Ad click prediction: a view from the trenches", KDD 2013.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([0.0, 0.0])
    >>> opt = schuss.FTRL(w, lr=1.0, l1=1.0, initial_accumulator_value=0.0)
    >>> opt.step(np.array([4.0, -0.5]))
    True
    >>> w
    array([-0.75,  0.  ])
    """

    lr: Rate = 1e-3
    lr_power: Falling = -0.5
    initial_accumulator_value: float = 0.1
    l1: float = 0.0
    l2: float = 0.0
    l2_shrinkage: float = 0.0
    beta: float = 0.0

    _by_rows = True

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {
            "exponent": -hypers["lr_power"],
            "initial_accumulator_value": hypers["initial_accumulator_value"],
            "lambda1": hypers["l1"],
            "lambda2": hypers["l2"],
            "shrinkage": hypers["l2_shrinkage"],
            "beta": hypers["beta"],
        }
