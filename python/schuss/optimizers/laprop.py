"""LaProp."""

from __future__ import annotations

from schuss._core.hyperparameters import Betas, Cautious, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class LaProp(Optimizer):
    r"""LaProp: momentum of gradients that are divided by their root mean square first.

    .. math::

       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
       & m \leftarrow \beta_1 m + (1 - \beta_1) \frac{g}{\sqrt{v} / \sqrt{1 - \beta_2^t} + \epsilon} \\
       & p \leftarrow \left(p - \eta \frac{m}{1 - \beta_1^t}\right) (1 - \eta \lambda)

    The state `w`, one float64 number for each array, is the sum of the weights in `m`, :math:`1 - \beta_1^t`.
    pytorch_optimizer adds :math:`\epsilon` before the correction of the bias, and 1e-15 inside the root too.

    Parameters
    ----------
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled, after the step.
    lr_in_momentum : bool, default False
        Multiply what is added to `m` and to `w` by the learning rate, which smooths a rate that changes and leaves a
        constant one as it is. That is the form of the authors' code and timm.

    References
    ----------
    Ziyin, Wang and Ueda, "LaProp: separating momentum and adaptivity in Adam", arXiv:2002.04839.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.LaProp(w, lr=0.1).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 4e-4
    betas: Betas = (0.9, 0.999)
    eps: float = 1e-15
    weight_decay: WeightDecay = 0.0
    lr_in_momentum: bool = False
    cautious: Cautious = None

    _decay_form = "own"
    _int8 = True
