"""NovoGrad."""

from __future__ import annotations

from schuss._core.hyperparameters import Betas, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class NovoGrad(Optimizer):
    r"""NovoGrad: momentum of gradients, each divided by a running norm of its array (layer).

    For each array :math:`v \leftarrow \lVert g \rVert^2` at step 1, later
    :math:`v \leftarrow \beta_2 v + (1 - \beta_2) \lVert g \rVert^2`; then

    .. math::

       & m \leftarrow \beta_1 m + \frac{g}{\sqrt{v} + \epsilon} + \lambda p \\
       & p \leftarrow p - \eta m

    The state `v` is one float64 number for each array.

    Norms are summed in memory order: they do not depend on CPU or threads, but an array in Fortran order may differ in
    the last bits from one with the same values in C order.

    Parameters
    ----------
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0; the decay goes through the momentum.
    grad_averaging : bool, default False
        Multiply what is added to the momentum by :math:`1 - \beta_1`, including step 1 as in NVIDIA's code;
        pytorch_optimizer leaves step 1 out.

    References
    ----------
    Ginsburg et al., "Stochastic gradient methods with layer-wise adaptive moments for training of deep networks",
    arXiv:1905.11286.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.NovoGrad(w, lr=0.5, eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.7, -1.6])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.95, 0.98)
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    grad_averaging: bool = False

    _decay_form = "own"
    _int8 = True
