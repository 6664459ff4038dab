"""RAdam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from schuss._core.optimizer import Optimizer


class RAdam(Optimizer):
    r"""RAdam: Adam whose first steps are rectified, or free of the denominator, instead of warmed up.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
       \rho_\infty = \frac{2}{1 - \beta_2} - 1, \quad \rho = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}

    Where :math:`\rho` exceeds the threshold,

    .. math:: p \leftarrow p - \eta \frac{m}{1 - \beta_1^t} \, r \, \frac{\sqrt{1 - \beta_2^t}}{\sqrt{v} + \epsilon},
       \qquad
       r = \sqrt{\frac{(\rho - 4)(\rho - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho}};

    before that :math:`p \leftarrow p - \eta m / (1 - \beta_1^t)`, or nothing.

    Parameters
    ----------
    params : array, list, tuple, dict, or list of group dicts
        Arrays to update in place: writable, contiguous, float32, float64, float16 or bfloat16.
    lr : float or callable, default 1e-3
        Learning rate :math:`\eta`, >= 0, or a function of the step that returns it; the first step is 0.
    betas : pair of float, default (0.9, 0.999)
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float, default 1e-8
        :math:`\epsilon` >= 0.
    weight_decay : float, default 0.0
        L2: ``weight_decay * p`` is added to the gradient; or decoupled.
    decoupled_weight_decay : bool, default False
        Multiply the parameter by ``1 - lr * weight_decay`` first instead, as in AdamW.
    threshold : float, default 5.0
        The :math:`\rho` above which the step is rectified, >= 4. PyTorch has 5, the paper 4.
    unrectified : {"sgd", "frozen"}, default "sgd"
        Before that, step without the denominator as PyTorch does, or leave the parameter as it is, decay included:
        the default of the authors' code.
    maximize : bool, default False
        Ascend instead of descend.
    max_grad_norm : float, optional
        Scale all gradients so that their global norm is at most this, inside the step.
    nonfinite : {"propagate", "skip", "error"}, default "propagate"
        What to do about NaN and infinities in gradients.
    state_dtype : {"float32", "bfloat16", "int8"}, optional
        What the state is kept in; by default what the update is computed in.
    state_rounding : {"stochastic", "nearest"}, default "stochastic"
        How a smaller state is rounded.
    state_seed : int, default 0
        What the random bits of stochastic rounding depend on, beside the step and the place.
    master_weights : bool, default False
        Keep a float32 copy of float16 or bfloat16 parameters in the state and update that; the parameters are rounded
        from it.

    Raises
    ------
    TypeError, ValueError
        An array or a hyperparameter cannot be used; the message names it.

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

    def __init__(
        self,
        params: Any,
        lr: float | Callable[[int], float] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        threshold: float = 5.0,
        unrectified: str = "sgd",
        maximize: bool = False,
        *,
        max_grad_norm: float | None = None,
        nonfinite: str = "propagate",
        state_dtype: str | None = None,
        state_rounding: str = "stochastic",
        state_seed: int = 0,
        master_weights: bool = False,
    ) -> None:
        self._setup(locals())

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "radam"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {**super()._rule_values(hypers), "frozen": hypers["unrectified"] == "frozen"}

    @classmethod
    def _decay(cls, hypers: Mapping[str, Any]) -> str:
        return "decoupled" if hypers["decoupled_weight_decay"] else "l2"

    @classmethod
    def _takes_int8(cls, hypers: Mapping[str, Any]) -> bool:
        return True
