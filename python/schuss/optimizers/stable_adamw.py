"""StableAdamW."""

from __future__ import annotations

from schuss._core.hyperparameters import Betas, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class StableAdamW(Optimizer):
    r"""StableAdamW: AdamW whose learning rate shrinks for an array if its gradient is larger than the average expects.

    With :math:`\hat\beta_i = \beta_i (1 - \beta_i^{t-1}) / (1 - \beta_i^t)`, which need no bias correction,

    .. math::

       & m \leftarrow \hat\beta_1 m + (1 - \hat\beta_1) g \\
       & v \leftarrow \hat\beta_2 v + (1 - \hat\beta_2) g^2 \\
       & \eta' = \eta / \max\left(1, \operatorname{rms}\left(g / \sqrt{\max(v, \epsilon^2)}\right)\right) \\
       & p \leftarrow (1 - \eta' \lambda) p - \eta' \frac{m}{\sqrt{v} + \epsilon}

    Parameters
    ----------
    weight_decay : float or callable, default 1e-2
        :math:`\lambda` >= 0, decoupled.

    References
    ----------
    Wortsman et al., "Stable and low-precision training for large-scale vision-language models", arXiv:2304.13013.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.StableAdamW(w, lr=0.1, eps=0.0, weight_decay=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: WeightDecay = 1e-2

    _decay_form = "own"
