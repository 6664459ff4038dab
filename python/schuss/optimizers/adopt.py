"""ADOPT."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from schuss._core.hyperparameters import Betas, Cautious, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class ADOPT(Optimizer):
    r"""ADOPT: Adam that divides by the second moment of earlier gradients, and converges with any :math:`\beta_2`.

    The first step sets :math:`v = g^2`, and no parameter moves. Then

    .. math::

       & n = \mathrm{clip}\left(\frac{g}{\max(\sqrt{v}, \epsilon)}, -c, c\right), \quad c = (t - 1)^{1/4} \\
       & m \leftarrow \beta_1 m + (1 - \beta_1) n \\
       & p \leftarrow p - \eta m \\
       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2

    pytorch_optimizer's bound is :math:`t^{1/4}`.

    Parameters
    ----------
    clip_exp : float or None, default 0.25
        The exponent of :math:`c`, >= 0. ``None``: no clipping, as in the paper's first version. timm has 0.333.

    References
    ----------
    Taniguchi et al., "ADOPT: modified Adam can converge with any beta2 with the optimal rate", arXiv:2411.02853.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> opt = schuss.ADOPT(w, lr=0.1, betas=(0.0, 0.9999))
    >>> for _ in range(2):
    ...     taken = opt.step(np.array([3.0, -4.0]))
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.9999)
    eps: float = 1e-6
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False
    clip_exp: float | None = 0.25
    cautious: Cautious = None

    _int8 = True

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        power = hypers["clip_exp"]
        own = {"clip_exp": power or 0.0, "unclipped": math.inf if power is None else 1.0}
        return {**super()._rule_values(hypers), **own}
