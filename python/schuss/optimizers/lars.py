"""LARS."""

from __future__ import annotations

from schuss._core.hyperparameters import ClosedFraction, Momentum, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class LARS(Optimizer):
    r"""LARS: momentum whose step is scaled for each array (layer) by a trust ratio.

    .. math::

       & r = \frac{\tau \lVert p \rVert}{\lVert g \rVert + \lambda \lVert p \rVert + \epsilon} \\
       & b \leftarrow \mu b + \eta r (g + \lambda p) \\
       & p \leftarrow p - b

    The ratio is 1 if a norm is 0, if ``adapt`` is off, and without weight decay unless ``always_adapt``. Step 1 copies
    into the buffer, so dampening is not applied on step 1, as in `SGD`.

    Norms are summed in memory order: they do not depend on CPU or threads, but an array in Fortran order may differ in
    the last bits from one with the same values in C order.

    Biases and other one-dimensional arrays usually go into a group with ``adapt=False, weight_decay=0``:
    `schuss.split_groups` makes these groups. Give that group its own learning rate, since the main one is meant to be
    scaled down by a ratio: ``schuss.split_groups(params, lr=0.01)``.

    Parameters
    ----------
    lr : float or callable
        Learning rate :math:`\eta`, >= 0, or a function of the step that returns it; the first step is 0. No default:
        it depends on the batch size.
    momentum : float or callable, default 0.9
        :math:`\mu` in [0, 1).
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0.
    trust_coefficient : float, default 1e-3
        :math:`\tau` >= 0.
    nesterov : bool, default False
        Step by :math:`\mu b` plus the newest term instead of by :math:`b`.
    dampening : float, default 0.0
        The newest term is multiplied by one minus this before it is added to the buffer; in [0, 1].
    trust_clip : bool, default False
        Clip as LARC does: the ratio is :math:`\min(r / \eta, 1)`.
    always_adapt : bool, default False
        Use the ratio without weight decay too.
    lr_in_momentum : bool, default True
        ``False`` is timm's form: :math:`b \leftarrow \mu b + r (g + \lambda p)`, :math:`p \leftarrow p - \eta b`.
    adapt : bool, default True
        ``False`` turns the ratio off; meant for groups.

    References
    ----------
    You, Gitman and Ginsburg, "Large batch training of convolutional networks", arXiv:1708.03888.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([3.0, 4.0])
    >>> opt = schuss.LARS(w, lr=1.0, weight_decay=1.0, trust_coefficient=0.5, eps=0.0)
    >>> opt.step(np.array([0.0, 5.0]))
    True
    >>> w
    array([2.25, 1.75])
    """

    lr: Rate
    momentum: Momentum = 0.9
    weight_decay: WeightDecay = 0.0
    trust_coefficient: float = 1e-3
    eps: float = 1e-8
    nesterov: bool = False
    dampening: ClosedFraction = 0.0
    trust_clip: bool = False
    always_adapt: bool = False
    lr_in_momentum: bool = True
    adapt: bool = True

    _decay_form = "own"
    _int8 = True
