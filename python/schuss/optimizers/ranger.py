"""Ranger: RAdam, Lookahead and centralized gradients."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from schuss._arrays.layout import Matrix, of_outputs
from schuss._core.declaration import option
from schuss._core.hyperparameters import Betas, Layout, Rate, WeightDecay
from schuss.optimizers.radam import RAdam, RectificationThreshold
from schuss.wrappers.lookahead import Lookahead, SlowStep


class _CentralizedRAdam(RAdam):
    """RAdam with decoupled decay on centralized gradients."""

    _label = "Ranger"
    _old_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"layout": "out_in"})

    gradient_centralization: bool = True
    gc_conv_only: bool = False
    layout: Layout = "in_out"
    # Fixed in Ranger.
    decoupled_weight_decay: bool = option(default=True, init=False)
    unrectified: Literal["sgd", "frozen"] = option(default="sgd", init=False)
    eps_form: Literal["torch", "corrected"] = option(default="torch", init=False)

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return super()._rule_values({**hypers, "unrectified": "sgd", "eps_form": "torch"})

    @classmethod
    def _decay(cls, hypers: Mapping[str, Any]) -> str:
        return "decoupled"

    @classmethod
    def _array_rule(cls, hypers: Mapping[str, Any], array: np.ndarray) -> str:
        centralized = hypers["gradient_centralization"] and array.ndim > (3 if hypers["gc_conv_only"] else 1)
        return "radam_centralized" if centralized else "radam"

    @classmethod
    def _structure(cls, hypers: Mapping[str, Any]) -> tuple[Any, ...]:
        # Fixed even if no array of the group is affected by them.
        return hypers["gradient_centralization"], hypers["gc_conv_only"], hypers["layout"]

    @classmethod
    def _matrix(cls, hypers: Mapping[str, Any], array: np.ndarray) -> Matrix:
        return of_outputs(array, hypers["layout"])


class Ranger(Lookahead):
    r"""Ranger: `Lookahead` around `RAdam`, with gradient centralization.

    Each step subtracts from every gradient with more than one dimension the mean of each output, over all axes but that
    of the outputs, multiplies the parameter by :math:`1 - \eta \lambda`, and takes the step of `RAdam`; Lookahead
    synchronizes after every k-th step. In some other packages, a wrong sign makes the steps before RAdam's
    rectification go uphill; not here.

    Means are summed in memory order: they do not depend on CPU or threads, but for an array of more than two dimensions
    in Fortran order they may differ in the last bits from those in C order.

    Parameters
    ----------
    betas : pair of float or callable, default (0.95, 0.999)
        :math:`\beta_1, \beta_2` in [0, 1).
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled.
    k : int, default 6
        Fast steps between synchronizations, >= 1.
    alpha : float, default 0.5
        Step size of the slow weights, in (0, 1].
    threshold : float, default 5.0
        The :math:`\rho` above which RAdam's step is rectified.
    gradient_centralization : bool, default True
        Subtract the means; fixed once the optimizer is made.
    gc_conv_only : bool, default False
        Only for gradients with more than three dimensions.
    layout : {"in_out", "out_in"}, default "in_out"
        Which dimension has the outputs: the last of ``(...k, in, out)``, NumPy's and Keras's layout, or the first of
        ``(out, in, k...)``, PyTorch's; fixed once the optimizer is made.
    max_grad_norm : float, optional
        Scale all gradients so that their global norm is at most this, inside the step, before centralization.

    References
    ----------
    RAdam: arXiv:1908.03265. Lookahead: arXiv:1907.08610. Gradient centralization: Yong et al., arXiv:2004.01461. The
    combination is Wright's.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([[1.0], [-2.0]])
    >>> schuss.Ranger(w, lr=0.1).step(np.array([[3.0], [-4.0]]))  # the mean of the output is -0.5
    True
    >>> w
    array([[ 0.65],
           [-1.65]])
    """

    _single_rule = False
    _label = "Ranger"

    lr: Rate = 1e-3
    betas: Betas = (0.95, 0.999)
    eps: float = 1e-5
    weight_decay: WeightDecay = 0.0
    k: int = option(default=6, whole=True)
    alpha: SlowStep = option(default=0.5, whole=True)
    threshold: RectificationThreshold = 5.0
    gradient_centralization: bool = True
    gc_conv_only: bool = False
    layout: Layout = "in_out"

    _int8 = True

    def _setup(self, params: Any, hypers: dict[str, Any], whole: dict[str, Any]) -> None:
        k, alpha = whole.pop("k"), whole.pop("alpha")
        self._wrap(_CentralizedRAdam(params, **hypers, **whole), k=k, alpha=alpha, pullback="none")
