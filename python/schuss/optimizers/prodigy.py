"""Prodigy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from schuss._core.hyperparameters import Betas, Fraction, Growth, Positive, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class Prodigy(Optimizer):
    r"""Prodigy: Adam with a learning rate estimated from the distance that the parameters have moved.

    With the estimate :math:`d`, which all arrays share, and :math:`\gamma = d \eta`, a step sums over all elements

    .. math::

       & n \leftarrow \beta_3 n + \frac{d}{d_0} \gamma \langle g, p_0 - p \rangle \\
       & s \leftarrow \beta_3 s + \frac{d}{d_0} \gamma g \\
       & d \leftarrow \max\left(d, c \frac{n}{\lVert s \rVert_1}\right)

    and takes Adam's step over :math:`d g` with :math:`m \leftarrow \beta_1 m + (1 - \beta_1) d g`,
    :math:`v \leftarrow \beta_2 v + (1 - \beta_2) d^2 g^2`,
    :math:`p \leftarrow p - \gamma m / (\sqrt{v} + d \epsilon)`. The first steps are tiny: the estimate starts at
    :math:`d_0` and grows. Leave ``lr`` at 1, or pass a schedule as a multiplier.

    The state has two more arrays than Adam's: `s`, and `p0`, the initial parameters. `d`, `d_max` and `num` are under
    ``shared`` in ``state_dict()``. All groups must have the same learning rate, or 0, which excludes a group from the
    estimate, and the same `beta3`, `d0`, `d_coef` and `growth_rate`.

    Parameters
    ----------
    beta3 : float, optional
        :math:`\beta_3` in [0, 1) of the estimate; by default the square root of :math:`\beta_2`.
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0.
    decoupled_weight_decay : bool, default True
        Multiply the parameter by :math:`1 - \gamma \lambda`; ``False`` adds ``weight_decay * p`` to the gradient.
    use_bias_correction : bool, default False
        Multiply :math:`\gamma` by :math:`\sqrt{1 - \beta_2^t} / (1 - \beta_1^t)`.
    safeguard_warmup : bool, default False
        Leave the learning rate out of :math:`s`: for schedules with warm-up.
    d0 : float, default 1e-6
        Initial value of the estimate, > 0.
    d_coef : float, default 1.0
        :math:`c` > 0: scales the estimate.
    growth_rate : float, default inf
        The largest factor by which the estimate grows in one step, >= 1; its first growth has no bound.

    References
    ----------
    Mishchenko and Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", arXiv:2306.06101.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> opt = schuss.Prodigy(w)
    >>> for _ in range(100):
    ...     taken = opt.step(w)  # the gradient of w**2 / 2
    >>> float(opt.state_dict()["shared"]["d"]) > 0.1
    True
    """

    lr: Rate = 1.0
    betas: Betas = (0.9, 0.999)
    beta3: Fraction | None = None
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = True
    use_bias_correction: bool = False
    safeguard_warmup: bool = False
    d0: Positive = 1e-6
    d_coef: Positive = 1.0
    growth_rate: Growth = math.inf

    _decay_form = "own"
    _single_rule = False

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        values = dict(super()._rule_values(hypers))
        values["beta3"] = math.sqrt(hypers["betas"][1]) if hypers["beta3"] is None else hypers["beta3"]
        values["bias_correction"] = hypers["use_bias_correction"]
        values["safeguard"] = hypers["safeguard_warmup"]
        values["decoupled"] = hypers["decoupled_weight_decay"]
        return values
