"""D-Adaptation of Adam and of SGD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from schuss._core.hyperparameters import Betas, Growth, Momentum, Positive, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class DAdaptAdam(Optimizer):
    r"""D-Adaptation of Adam: a learning rate estimated from gradients and the distance that they point to.

    With the estimate :math:`d`, which all arrays share, :math:`\gamma = d \eta` and :math:`q = \sqrt{\beta_2}`, a step
    sums over all elements, with `s` and `v` of the step before,

    .. math::

       & n \leftarrow q n + (1 - q) \gamma \left\langle g, \frac{s}{\sqrt v + \epsilon} \right\rangle \\
       & s \leftarrow q s + (1 - q) \gamma g \\
       & d \leftarrow \max\left(d, \frac{n}{(1 - q) \lVert s \rVert_1}\right)

    and takes Adam's step with :math:`m \leftarrow \beta_1 m + (1 - \beta_1) \gamma g`,
    :math:`v \leftarrow \beta_2 v + (1 - \beta_2) g^2`, :math:`p \leftarrow p - m / (\sqrt{v} + \epsilon)`. The first
    steps are tiny: the estimate starts at :math:`d_0` and grows. Leave ``lr`` at 1, or pass a schedule as a multiplier.

    The state has one more array than Adam's, `s`. `d` and `num` are under ``shared`` in ``state_dict()``. All groups
    must have the same learning rate, or 0, which excludes a group from the estimate, and the same :math:`\beta_2`, `d0`
    and `growth_rate`.

    Parameters
    ----------
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0.
    decoupled_weight_decay : bool, default False
        Multiply the parameter by :math:`1 - \gamma \lambda`; ``False`` adds ``weight_decay * p`` to the gradient.
    use_bias_correction : bool, default False
        Multiply :math:`\gamma` by :math:`\sqrt{1 - \beta_2^t} / (1 - \beta_1^t)`; Optax always does.
    d0 : float, default 1e-6
        Initial value of the estimate, > 0.
    growth_rate : float, default inf
        The largest factor by which the estimate grows in one step, >= 1.

    References
    ----------
    Defazio and Mishchenko, "Learning-rate-free learning by D-Adaptation", arXiv:2301.07733.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> opt = schuss.DAdaptAdam(w)
    >>> for _ in range(100):
    ...     taken = opt.step(w)  # the gradient of w**2 / 2
    >>> float(opt.state_dict()["shared"]["d"]) > 1e-3
    True
    """

    lr: Rate = 1.0
    betas: Betas = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False
    use_bias_correction: bool = False
    d0: Positive = 1e-6
    growth_rate: Growth = math.inf

    _decay_form = "own"
    _single_rule = False

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        more = {"bias_correction": hypers["use_bias_correction"], "decoupled": hypers["decoupled_weight_decay"]}
        return {**super()._rule_values(hypers), **more}


class DAdaptSGD(Optimizer):
    r"""D-Adaptation of SGD: a learning rate estimated from gradients and the distance that they point to.

    With the estimate :math:`d`, which all arrays share, and the norm :math:`g_0` of the first gradients, before weight
    decay, :math:`\gamma = d \eta / g_0`, and a step sums over all elements, with `s` of the step before,

    .. math::

       & n \leftarrow n + \gamma \langle g, s \rangle \\
       & s \leftarrow s + \gamma g \\
       & p \leftarrow \mu p + (1 - \mu) (x_0 - s) \\
       & d \leftarrow \max\left(d, \frac{2 n}{\lVert s \rVert}\right)

    The first steps are tiny: the estimate starts at :math:`d_0` and grows. Leave ``lr`` at 1, or pass a schedule as a
    multiplier. Gradients of 0 before the first others move nothing.

    The state is `s` and the initial parameters `x0`. `d`, `num` and `g0` are under ``shared`` in ``state_dict()``. All
    groups must have the same learning rate, or 0, which excludes a group from the estimate, and the same `d0` and
    `growth_rate`.

    Parameters
    ----------
    momentum : float or callable, default 0.0
        :math:`\mu` in [0, 1).
    d0 : float, default 1e-6
        Initial value of the estimate, > 0.
    growth_rate : float, default inf
        The largest factor by which the estimate grows in one step, >= 1.

    References
    ----------
    Defazio and Mishchenko, "Learning-rate-free learning by D-Adaptation", arXiv:2301.07733.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> opt = schuss.DAdaptSGD(w)
    >>> for _ in range(100):
    ...     taken = opt.step(w)  # the gradient of w**2 / 2
    >>> float(opt.state_dict()["shared"]["d"]) > 1e-3
    True
    """

    lr: Rate = 1.0
    momentum: Momentum = 0.0
    weight_decay: WeightDecay = 0.0
    d0: Positive = 1e-6
    growth_rate: Growth = math.inf

    _single_rule = False
