"""Adagrad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schuss._core.optimizer import Optimizer


class Adagrad(Optimizer):
    r"""Adagrad: each element's learning rate falls with the sum of its squared gradients.

    .. math:: s \leftarrow s + g^2, \qquad
       p \leftarrow p - \frac{\eta}{1 + (t-1)\,\mathrm{lr\_decay}} \frac{g}{\sqrt{s} + \epsilon}

    Parameters
    ----------
    params : array, list, tuple, dict, or list of group dicts
        Arrays to update in place: writable, contiguous, float32, float64, float16 or bfloat16.
    lr : float or callable, default 1e-2
        Learning rate :math:`\eta`, >= 0, or a function of the step that returns it; the first step is 0.
    lr_decay : float, default 0.0
        Learning-rate decay, >= 0.
    weight_decay : float, default 0.0
        L2: ``weight_decay * p`` is added to the gradient.
    initial_accumulator_value : float, default 0.0
        First value of :math:`s`, >= 0.
    eps : float, default 1e-10
        :math:`\epsilon` >= 0.
    eps_inside_sqrt : bool, default False
        Divide by :math:`\sqrt{s + \epsilon}` instead. Keras and Optax do, with an accumulator that starts at 0.1.
    maximize : bool, default False
        Ascend instead of descend.
    max_grad_norm : float, optional
        Scale all gradients so that their global norm is at most this, inside the step.
    nonfinite : {"propagate", "skip", "error"}, default "propagate"
        What to do about NaN and infinities in gradients.
    state_dtype : {"float32", "bfloat16"}, optional
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
    Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic optimization", JMLR 12,
    2011.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Adagrad(w, lr=0.5).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.5, -1.5])
    """

    _initial_state = {"s": "initial_accumulator_value"}

    def __init__(
        self,
        params: Any,
        lr: float | Callable[[int], float] = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        eps_inside_sqrt: bool = False,
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
