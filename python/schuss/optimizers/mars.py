"""MARS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from schuss._core.hyperparameters import Betas, Cautious, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class MARS(Optimizer):
    r"""MARS: AdamW or Lion on gradients whose variance is reduced with the gradient of the step before.

    For arrays of more than one dimension

    .. math::

       & c = g + \gamma \frac{\beta_1}{1 - \beta_1} (g - g'), \quad \text{at step 1} \; c = g, \quad g' \leftarrow g \\
       & c \leftarrow c / \max(1, \|c\|) \\
       & m \leftarrow \beta_1 m + (1 - \beta_1) c \\
       & v \leftarrow \beta_2 v + (1 - \beta_2) c^2 \\
       & p \leftarrow (1 - \eta \lambda) p
         - \frac{\eta}{1 - \beta_1^t} \frac{m}{\sqrt{v} / \sqrt{1 - \beta_2^t} + \epsilon}

    with the norm of the whole array. Arrays of fewer dimensions take steps of `AdamW`. This is the authors' approximate
    form; the exact one needs the new batch's gradient at the parameters of the step before. In pytorch_optimizer,
    :math:`g'` is 0 at step 1.

    Parameters
    ----------
    betas : pair of float or callable, default (0.95, 0.99)
        :math:`\beta_1, \beta_2` in [0, 1).
    gamma : float, default 0.025
        :math:`\gamma` >= 0, how much of the change of the gradient is added.
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled.
    base : {"adamw", "lion"}, default "adamw"
        ``"lion"``: :math:`p \leftarrow (1 - \eta \lambda) p - \eta \, \mathrm{sign}(m)`, without `v`.
    optimize_1d : bool, default False
        Also arrays of fewer than two dimensions take steps of MARS.
    lr_1d : float, optional
        The learning rate of AdamW's steps, if it is another; a schedule multiplies it as it does ``lr``.
    betas_1d : pair of float or callable, default (0.9, 0.95)
        The betas of AdamW's steps, in [0, 1).
    weight_decay_1d : float, optional
        The weight decay of AdamW's steps, if it is another.

    References
    ----------
    Yuan et al., "MARS: unleashing the power of variance reduction for training large models", arXiv:2411.10438.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([[1.0, -2.0]])
    >>> schuss.MARS(w, lr=0.1, eps=0.0).step(np.array([[3.0, -4.0]]))
    True
    >>> w
    array([[ 0.9, -1.9]])
    """

    lr: Rate = 3e-3
    betas: Betas = (0.95, 0.99)
    gamma: float = 0.025
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    base: Literal["adamw", "lion"] = "adamw"
    optimize_1d: bool = False
    lr_1d: float | None = None
    betas_1d: Betas = (0.9, 0.95)
    weight_decay_1d: float | None = None
    cautious: Cautious = None

    _decay_form = "own"

    @classmethod
    def _array_rule(cls, hypers: Mapping[str, Any], array: np.ndarray) -> str:
        if array.ndim < 2 and not hypers["optimize_1d"]:
            rule = "mars_vector"
        else:
            rule = "mars" if hypers["base"] == "adamw" else "mars_lion"
        return f"{rule}_cautious" if hypers["cautious"] else rule

    @classmethod
    def _structure(cls, hypers: Mapping[str, Any]) -> tuple[Any, ...]:
        return hypers["base"], hypers["optimize_1d"], bool(hypers["cautious"])

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        rate, decay = hypers["lr_1d"], hypers["weight_decay_1d"]
        beta1, beta2 = hypers["betas_1d"]
        return {
            **super()._rule_values(hypers),
            "vector_beta1": beta1,
            "vector_beta2": beta2,
            "vector_decay": hypers["weight_decay"] if decay is None else decay,
            "vector_rate": rate or 0.0,
            "own_rate": rate is not None,
        }

    @classmethod
    def _by_first_rate(cls, hypers: Mapping[str, Any]) -> str | None:
        return None if hypers["lr_1d"] is None else "lr_1d"
