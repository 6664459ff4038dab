"""LAMB."""

from __future__ import annotations

from schuss._core.declaration import option
from schuss._core.hyperparameters import Betas, Bound, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class LAMB(Optimizer):
    r"""LAMB: Adam whose step is scaled for each array (layer) by a trust ratio.

    .. math::

       & m \leftarrow \beta_1 m + \beta_3 g \\
       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
       & u = \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon} + \lambda p \\
       & p \leftarrow p - \eta \frac{\lVert p \rVert}{\lVert u \rVert} u

    with :math:`\beta_3 = 1 - \beta_1`, or 1 without ``grad_averaging``. The ratio is 1 if a norm is 0, if ``adapt`` is
    off, and without weight decay unless ``always_adapt``. This is the same as NVIDIA's FusedLAMB and timm's Lamb, which
    also clip gradients to a global norm of 1 first.

    Norms are summed in memory order: they do not depend on CPU or threads, but an array in Fortran order may differ in
    the last bits from one with the same values in C order.

    Biases and other one-dimensional arrays usually go into a group with ``adapt=False, weight_decay=0``:
    `schuss.split_groups` makes these groups.

    Parameters
    ----------
    weight_decay : float or callable, default 1e-2
        :math:`\lambda` >= 0.
    bias_correction : bool, default True
        ``False`` leaves out :math:`1 - \beta^t` in both places.
    grad_averaging : bool, default True
        Which :math:`\beta_3`; ``False`` is 1.
    always_adapt : bool, default False
        Use the ratio without weight decay too.
    trust_clip : bool, default False
        Clip the ratio to at most 1.
    adapt : bool, default True
        ``False`` turns the ratio off; meant for groups.
    max_grad_norm : float, optional, default 1.0
        Scale all gradients so that their global norm is at most this, inside the step; None turns this off.

    References
    ----------
    You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", arXiv:1904.00962.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([3.0, -4.0])
    >>> schuss.LAMB(w, lr=0.1, eps=0.0, weight_decay=0.0, always_adapt=True).step(np.array([3.0, -4.0]))
    True
    >>> w.round(4)
    array([ 2.6464, -3.6464])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: float = 1e-6
    weight_decay: WeightDecay = 1e-2
    bias_correction: bool = True
    grad_averaging: bool = True
    always_adapt: bool = False
    trust_clip: bool = False
    adapt: bool = True
    max_grad_norm: Bound | None = option(default=1.0, kw_only=True)

    _decay_form = "own"
