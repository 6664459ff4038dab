"""Adafactor, in PyTorch's form and in that of Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from schuss._arrays import checks
from schuss._core.hyperparameters import Falling, Fraction, Positive, Range, Rate, WeightDecay
from schuss._core.kind import LEAST_ADDED, smallest_square
from schuss._core.optimizer import Optimizer

#: A bound on the root mean square of an update.
UpdateBound = Annotated[float, Range(low=1.0)]


class Adafactor(Optimizer):
    r"""Adafactor: the second moment of a matrix is factored into one number per row and one per column.

    With :math:`\beta = 1 - t^{\kappa}` the mean squares of the gradient's rows and columns are averaged in `r` and `c`,
    :math:`r_i \leftarrow \beta r_i + (1 - \beta) \overline{g_{i \cdot}^2}` and likewise :math:`c_j`; then

    .. math::

       & v_{ij} = \frac{r_i c_j}{\max(\bar r, \epsilon_1)} \\
       & u = \frac{g}{\sqrt{\max(v, \epsilon_1^2)}} \\
       & \rho = \min\left(\eta, \frac{1}{\sqrt t}\right) \\
       & p \leftarrow (1 - \eta \lambda) p
         - \max(\epsilon_2, \mathrm{rms}(p)) \, \rho \, \frac{u}{\max(1, \mathrm{rms}(u) / d)}

    This is PyTorch's form. The last two axes of an array are matrices, the others batch dimensions; arrays with fewer
    than two dimensions keep `v` for each element.

    Means are summed in memory order: they do not depend on CPU or threads, but an array in Fortran order may differ in
    the last bits from one with the same values in C order.

    Parameters
    ----------
    beta2_decay : float, default -0.8
        :math:`\kappa` <= 0.
    eps : pair of float, default (None, 1e-3)
        :math:`\epsilon_1, \epsilon_2` >= 0; None is the machine epsilon of the dtype that the update is computed in.
    d : float, default 1.0
        The clipping threshold for the root mean square of an update, >= 1.
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled: the parameter is multiplied by :math:`1 - \eta \lambda`, after
        `rms(p)` is computed.
    relative_step : bool, default False
        :math:`\rho = \min(10^{-2}, 1/\sqrt t)` without a learning rate, as in the authors' code; ``lr`` then only
        affects weight decay.

    References
    ----------
    Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear memory cost", arXiv:1804.04235.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([[1.0, -2.0], [3.0, -4.0]])
    >>> opt = schuss.Adafactor(w, lr=0.1)
    >>> opt.step(np.ones((2, 2)))
    True
    >>> opt.state_dict()["state"][0]["r"]
    array([[1.],
           [1.]])
    """

    lr: Rate = 1e-2
    beta2_decay: Falling = -0.8
    eps: tuple[float | None, float] = (None, 1e-3)
    d: UpdateBound = 1.0
    weight_decay: WeightDecay = 0.0
    relative_step: bool = False

    _decay_form = "decoupled"

    @classmethod
    def _array_rule(cls, hypers: Mapping[str, Any], array: np.ndarray) -> str:
        return "adafactor" if array.ndim > 1 else "adafactor_vector"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        fixed = {"beta1": 0.0, "own_decay": 0.0, "warmup_init": False, "scale_parameter": True, "added": False}
        return {**super()._rule_values(hypers), **fixed}

    @classmethod
    def _typed_rule_values(cls, hypers: Mapping[str, Any], dtype: np.dtype[Any]) -> Mapping[str, float]:
        first, second = hypers["eps"]
        if first is None:
            first = float(np.finfo(checks.compute_dtype(dtype)).eps)
        # Its square must not be 0.
        return cls._rule_values({**hypers, "eps": (max(first, math.sqrt(smallest_square(dtype))), second)})


class AdafactorHF(Optimizer):
    r"""Adafactor in the form of Hugging Face's transformers, fairseq and T5.

    With :math:`\beta = 1 - t^{\kappa}`, `r` and `c` average the means of :math:`g^2 + \epsilon_1` over rows and
    columns, :math:`r_i \leftarrow \beta r_i + (1 - \beta) \overline{(g^2 + \epsilon_1)_{i \cdot}}` and likewise
    :math:`c_j`; then

    .. math::

       & u = g \Big/ \sqrt{\frac{r_i c_j}{\bar r}} \\
       & \rho = \min\left(10^{-2}, \frac{1}{\sqrt t}\right) \text{ without a learning rate, else } \eta \\
       & \alpha = \max(\epsilon_2, \mathrm{rms}(p)) \, \rho \\
       & p \leftarrow (1 - \alpha \lambda) p - \alpha \frac{u}{\max(1, \mathrm{rms}(u) / d)}

    with the option `clip_threshold` as :math:`d`. `Adafactor` is PyTorch's form: there :math:`\epsilon_1` is a floor,
    and :math:`1 / \sqrt t` bounds every learning rate. The last two axes of an array are matrices, the others batch
    dimensions; arrays with fewer than two dimensions keep `v` for each element.

    Parameters
    ----------
    lr : float or callable, optional
        Learning rate :math:`\eta`, >= 0, or a function of the step that returns it; None is the relative step.
    eps : pair of float, default (1e-30, 1e-3)
        :math:`\epsilon_1, \epsilon_2` >= 0; an :math:`\epsilon_1` of 0 counts as 1e-31.
    clip_threshold : float, default 1.0
        :math:`d` > 0: the clipping threshold for the root mean square of an update.
    decay_rate : float, default -0.8
        :math:`\kappa` <= 0.
    beta1 : float, optional
        In [0, 1): `m` averages the updates, :math:`m \leftarrow \beta_1 m + (1 - \beta_1) u'`, and is subtracted
        instead.
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled, and multiplied by :math:`\alpha`.
    scale_parameter : bool, default True
        Multiply the step by :math:`\max(\epsilon_2, \mathrm{rms}(p))`, whether it is relative or not; timm only
        does it for a relative step.
    relative_step : bool, optional
        Whether :math:`\rho` is the relative step; by default it is if ``lr`` is None. transformers also needs
        ``relative_step=False`` beside an ``lr``.
    warmup_init : bool, default False
        The relative step is :math:`\min(10^{-6} t, 1 / \sqrt t)`.

    References
    ----------
    Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear memory cost", arXiv:1804.04235.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([[1.0, -1.0], [1.0, -1.0]])
    >>> schuss.AdafactorHF(w, lr=0.5).step(np.ones((2, 2)))
    True
    >>> w
    array([[ 0.5, -1.5],
           [ 0.5, -1.5]])
    """

    lr: Rate | None = None
    eps: tuple[float, float] = (1e-30, 1e-3)
    clip_threshold: Positive = 1.0
    decay_rate: Falling = -0.8
    beta1: Fraction | None = None
    weight_decay: WeightDecay = 0.0
    scale_parameter: bool = True
    relative_step: bool | None = None
    warmup_init: bool = False

    _decay_form = "own"

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "adafactor" if hypers["beta1"] is None else "adafactor_momentum"

    @classmethod
    def _array_rule(cls, hypers: Mapping[str, Any], array: np.ndarray) -> str:
        form = "" if array.ndim > 1 else "_vector"
        return f"adafactor{form}" if hypers["beta1"] is None else f"adafactor{form}_momentum"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {
            **super()._rule_values(hypers),
            "beta2_decay": hypers["decay_rate"],
            "beta1": 0.0 if hypers["beta1"] is None else hypers["beta1"],
            "d": hypers["clip_threshold"],
            "own_decay": hypers["weight_decay"],
            "relative_step": hypers["lr"] is None,
            "added": True,
        }

    @classmethod
    def _typed_rule_values(cls, hypers: Mapping[str, Any], dtype: np.dtype[Any]) -> Mapping[str, float]:
        first, second = hypers["eps"]
        return cls._rule_values({**hypers, "eps": (max(first, LEAST_ADDED), second)})

    @classmethod
    def _check(cls, hypers: Mapping[str, Any]) -> None:
        if hypers["lr"] is None:
            if hypers["relative_step"] is False:
                raise ValueError("relative_step=False needs an lr")
        elif hypers["relative_step"]:
            raise ValueError("lr and relative_step=True exclude each other; leave one out")
        elif hypers["warmup_init"]:
            raise ValueError("warmup_init=True is for the relative step, which has no lr; leave one out")
