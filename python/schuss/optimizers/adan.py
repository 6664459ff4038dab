"""Adan."""

from __future__ import annotations

from schuss._core.hyperparameters import Betas3, Cautious, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class Adan(Optimizer):
    r"""Adan: Adam with Nesterov momentum from differences of successive gradients.

    .. math::

       & c = g - g_{prev}, \quad 0 \text{ in step } 1 \\
       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & d \leftarrow \beta_2 d + (1 - \beta_2) c \\
       & n \leftarrow \beta_3 n + (1 - \beta_3) (g + \beta_2 c)^2 \\
       & p \leftarrow \frac{1}{1 + \eta \lambda} \left(p - \eta \frac{m / (1 - \beta_1^t) + \beta_2 d / (1 - \beta_2^t)}
         {\sqrt{n} / \sqrt{1 - \beta_3^t} + \epsilon}\right)

    The betas are those of the authors' code, 1 minus the paper's. The state `prev` is the gradient after clipping and
    scaling. Optax (0.2.8) has :math:`1 - \beta_2` in both places where :math:`\beta_2` belongs.

    Parameters
    ----------
    betas : three float or callable, default (0.98, 0.92, 0.99)
        :math:`\beta_1, \beta_2, \beta_3` in [0, 1).
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0.
    no_prox : bool, default False
        Multiply the parameter by :math:`1 - \eta \lambda` before the step instead.
    cautious : {"mean", "plus_one"}, optional
        As for `AdamW`, of the term with :math:`m` alone, as in timm.

    References
    ----------
    Xie et al., "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models", arXiv:2208.06677.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Adan(w, lr=0.1, eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 1e-3
    betas: Betas3 = (0.98, 0.92, 0.99)
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    no_prox: bool = False
    cautious: Cautious = None

    _decay_form = "own"
