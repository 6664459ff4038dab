"""AdaBelief."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from schuss._core.hyperparameters import Betas, Rate, WeightDecay
from schuss._core.optimizer import Optimizer
from schuss.optimizers.radam import RectificationThreshold


class AdaBelief(Optimizer):
    r"""AdaBelief: Adam that trusts a gradient which is close to its running average.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & s \leftarrow \beta_2 s + (1 - \beta_2) (g - m)^2 + \epsilon \\
       & p \leftarrow p - \frac{\eta}{1 - \beta_1^t} \frac{m}{\sqrt{s} / \sqrt{1 - \beta_2^t} + \epsilon}

    Parameters
    ----------
    eps : float, default 1e-16
        :math:`\epsilon` >= 0, also added to `s` in each step.
    decoupled_weight_decay : bool, default True
        Multiply the parameter by ``1 - lr * weight_decay`` first, as in AdamW; ``False`` is L2.
    amsgrad : bool, default False
        Divide by the largest :math:`s` so far.
    rectify : bool, default False
        Rectify the step as `RAdam` does: while its :math:`\rho` is below the threshold, the step has no denominator;
        then it is :math:`\eta / (1 - \beta_1^t) \cdot r \sqrt{1 - \beta_2^t} \cdot m / (\sqrt{s} + \epsilon)`. On by
        default in the authors' package.
    threshold : float, default 5.0
        The :math:`\rho` from which on the step is rectified, >= 4.
    unrectified : {"sgd", "frozen"}, default "sgd"
        Until then, step without the denominator, or leave the parameter unchanged, without weight decay.

    References
    ----------
    Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients", arXiv:2010.07468.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.AdaBelief(w, lr=0.09).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: float = 1e-16
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = True
    amsgrad: bool = False
    rectify: bool = False
    threshold: RectificationThreshold = 5.0
    unrectified: Literal["sgd", "frozen"] = "sgd"

    _eps_in_square = True
    _int8 = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "adabelief_amsgrad" if hypers["amsgrad"] else "adabelief"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {**super()._rule_values(hypers), "frozen": hypers["unrectified"] == "frozen"}
