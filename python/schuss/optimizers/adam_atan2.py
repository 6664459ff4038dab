"""AdamAtan2."""

from __future__ import annotations

from schuss._core.hyperparameters import Betas, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class AdamAtan2(Optimizer):
    r"""Adam-atan2: AdamW whose quotient is an arc tangent, so it needs no epsilon and its steps are bounded.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
       & p \leftarrow (1 - \eta \lambda) p - \eta a \, \operatorname{atan2}\left(
         \frac{m}{1 - \beta_1^t}, b \sqrt{\frac{v}{1 - \beta_2^t}}\right)

    Parameters
    ----------
    weight_decay : float or callable, default 1e-2
        :math:`\lambda` >= 0, decoupled.
    a, b : float, default 1.0
        Scales of the angle and of the root, >= 0. The paper has 1.27, about :math:`4 / \pi`, and 1.

    References
    ----------
    Everett et al., "Scaling exponents across parameterizations and optimizers", arXiv:2407.05872.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.AdamAtan2(w, lr=0.1, a=4 / np.pi, weight_decay=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.999)
    weight_decay: WeightDecay = 1e-2
    a: float = 1.0
    b: float = 1.0

    _decay_form = "decoupled"
    _int8 = True
