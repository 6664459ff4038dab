"""AdEMAMix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schuss._core.hyperparameters import Betas3, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class AdEMAMix(Optimizer):
    r"""AdEMAMix: AdamW with a second, slow average of gradients.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & m_2 \leftarrow \beta_3 m_2 + (1 - \beta_3) g \\
       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
       & p \leftarrow p - \eta \frac{m / (1 - \beta_1^t) + \alpha m_2}{\sqrt{v} / \sqrt{1 - \beta_2^t} + \epsilon}

    The bias of :math:`m_2` is not corrected; the warm-ups are there instead.

    Parameters
    ----------
    betas : three float or callable, default (0.9, 0.999, 0.9999)
        :math:`\beta_1, \beta_2, \beta_3` in [0, 1).
    alpha : float, default 5.0
        :math:`\alpha` >= 0, the weight of the slow average. The authors' code has 2.
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled.
    alpha_warmup : int, optional
        Steps in which :math:`\alpha` grows from 0 to its value.
    beta3_warmup : int, optional
        Steps in which :math:`\beta_3` grows from :math:`\beta_1` to its value, so that
        :math:`1 / \ln \beta_3` is linear in :math:`t`.

    References
    ----------
    Pagliardini, Ablin and Grangier, "The AdEMAMix optimizer: better, faster, older", arXiv:2409.03137.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.AdEMAMix(w, lr=0.1, alpha=0.0, eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 1e-3
    betas: Betas3 = (0.9, 0.999, 0.9999)
    alpha: float = 5.0
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    alpha_warmup: int | None = None
    beta3_warmup: int | None = None

    _decay_form = "decoupled"
    _int8 = True

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        warmups = {name: hypers[name] or 1 for name in ("alpha_warmup", "beta3_warmup")}
        return {**super()._rule_values(hypers), **warmups}
