"""Adam, AMSGrad and AdamW."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from schuss._core.optimizer import Optimizer


class Adam(Optimizer):
    r"""Adam: momentum over a running root mean square, both corrected for their start at zero.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
       p \leftarrow p - \frac{\eta}{1 - \beta_1^t} \frac{m}{\sqrt{v} / \sqrt{1 - \beta_2^t} + \epsilon}

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
        L2: ``weight_decay * p`` is added to the gradient. For decoupled decay use `AdamW`.
    amsgrad : bool, default False
        Divide by the largest :math:`v` so far: :math:`v_{max} \leftarrow \max(v_{max}, v)`, on the uncorrected
        :math:`v` as in PyTorch, Keras and the paper; Optax's default takes the maximum after the correction.
    bias_correction : bool, default True
        ``False`` leaves out :math:`1 - \beta^t` in both places.
    eps_form : {"torch", "keras"}, default "torch"
        ``"keras"`` is Keras's form, the paper's epsilon-hat:
        :math:`\eta \sqrt{1 - \beta_2^t} / (1 - \beta_1^t) \cdot m / (\sqrt{v} + \epsilon)`.
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
    Kingma and Ba, arXiv:1412.6980. AMSGrad: Reddi, Kale and Kumar, ICLR 2018.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Adam(w, lr=0.1, eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    def __init__(
        self,
        params: Any,
        lr: float | Callable[[int], float] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        bias_correction: bool = True,
        eps_form: str = "torch",
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
        return "amsgrad" if hypers["amsgrad"] else "adam"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {**super()._rule_values(hypers), "keras_eps": hypers["eps_form"] == "keras"}

    @classmethod
    def _takes_int8(cls, hypers: Mapping[str, Any]) -> bool:
        return not hypers["amsgrad"]  # rounding would drive maxima up


class AdamW(Adam):
    r"""Adam with decoupled weight decay: :math:`p \leftarrow (1 - \eta \lambda) p`, then the step of `Adam`.

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
    weight_decay : float, default 1e-2
        :math:`\lambda` >= 0.
    amsgrad, bias_correction, eps_form
        As for `Adam`.
    decay_form : {"lr", "independent"}, default "lr"
        ``"lr"``: the factor is :math:`1 - \eta \lambda`, as in PyTorch. ``"independent"``: it is
        :math:`1 - (\eta / \eta_0) \lambda` with the schedule's multiplier only, as in the paper. :math:`\eta_0` is the
        learning rate given first; for a schedule it is its attribute ``initial_lr``, or its value at step 0.
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
    Loshchilov and Hutter, arXiv:1711.05101, Algorithm 2.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.AdamW(w, lr=0.1, weight_decay=1.0, eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.8, -1.7])
    """

    def __init__(
        self,
        params: Any,
        lr: float | Callable[[int], float] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        bias_correction: bool = True,
        eps_form: str = "torch",
        decay_form: str = "lr",
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
    def _decay(cls, hypers: Mapping[str, Any]) -> str:
        return "independent" if hypers["decay_form"] == "independent" else "decoupled"
