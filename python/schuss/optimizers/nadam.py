"""NAdam."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from schuss._core.hyperparameters import Betas, Cautious, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class NAdam(Optimizer):
    r"""NAdam: Adam with Nesterov momentum, whose weight grows from about half of :math:`\beta_1` on.

    .. math::

       & \mu_t = \beta_1 \left(1 - \tfrac{1}{2} 0.96^{t \psi}\right), \quad
         \pi \leftarrow \pi \mu_t \\
       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
       & p \leftarrow p - \eta \frac{\frac{1 - \mu_t}{1 - \pi} g + \frac{\mu_{t+1}}{1 - \pi \mu_{t+1}} m}
         {\sqrt{v} / \sqrt{1 - \beta_2^t} + \epsilon}

    The state ``mu_product``, :math:`\pi`, is one float64 number for each array; PyTorch keeps it in float32.

    Parameters
    ----------
    momentum_decay : float or None, default 4e-3
        :math:`\psi` >= 0. ``None``: :math:`\mu_t` is :math:`\beta_1` in all steps, as in Optax. Keras has 1.
    form : {"dozat", "nadamw"}, default "dozat"
        ``"nadamw"``: the numerator is :math:`(\beta_1 m + (1 - \beta_1) g) / (1 - \beta_1^t)`. That is timm's NAdamW
        with ``decoupled_weight_decay=True``.

    References
    ----------
    Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.NAdam(w, lr=0.1, eps=0.0, form="nadamw", betas=(0.5, 0.999)).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.85, -1.85])
    """

    lr: Rate = 2e-3
    betas: Betas = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    momentum_decay: float | None = 4e-3
    decoupled_weight_decay: bool = False
    form: Literal["dozat", "nadamw"] = "dozat"
    cautious: Cautious = None

    _int8 = True

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        psi = hypers["momentum_decay"]
        own = {"momentum_decay": psi or 0.0, "damped": psi is not None, "nadamw": hypers["form"] == "nadamw"}
        return {**super()._rule_values(hypers), **own}
