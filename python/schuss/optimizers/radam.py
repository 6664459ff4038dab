"""RAdam."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from schuss._core.hyperparameters import Betas, Range, Rate, WeightDecay
from schuss._core.optimizer import Optimizer

#: The length of the moving average above which a step is rectified; the variance is undefined at 4 and below.
RectificationThreshold = Annotated[float, Range(low=4.0)]


class RAdam(Optimizer):
    r"""RAdam: Adam whose first steps are rectified, or have no denominator, instead of a warm-up.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
       & \rho_\infty = \frac{2}{1 - \beta_2} - 1 \\
       & \rho = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}

    If :math:`\rho` exceeds the threshold,

    .. math::

       & p \leftarrow p - \eta \frac{m}{1 - \beta_1^t} \, r \, \frac{\sqrt{1 - \beta_2^t}}{\sqrt{v} + \epsilon} \\
       & r = \sqrt{\frac{(\rho - 4)(\rho - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho}};

    until then :math:`p \leftarrow p - \eta m / (1 - \beta_1^t)`, or nothing.

    Parameters
    ----------
    threshold : float, default 5.0
        The :math:`\rho` above which the step is rectified, >= 4. PyTorch has 5, the paper 4.
    unrectified : {"sgd", "frozen"}, default "sgd"
        Until then, step without the denominator as PyTorch does; or, as the authors' code does by default, leave the
        parameter unchanged, without weight decay.
    eps_form : {"torch", "corrected"}, default "torch"
        Add :math:`\epsilon` to :math:`\sqrt{v}`; or to :math:`\sqrt{v / (1 - \beta_2^t)}`, as in books.

    References
    ----------
    Liu et al., "On the variance of the adaptive learning rate and beyond", arXiv:1908.03265.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.RAdam(w, lr=0.1).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.7, -1.6])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False
    threshold: RectificationThreshold = 5.0
    unrectified: Literal["sgd", "frozen"] = "sgd"
    eps_form: Literal["torch", "corrected"] = "torch"

    _old_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"eps_form": "torch"})
    _int8 = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "radam"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        corrected = hypers["eps_form"] == "corrected"
        return {**super()._rule_values(hypers), "frozen": hypers["unrectified"] == "frozen", "corrected": corrected}
