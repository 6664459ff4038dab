"""RMSprop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from schuss._core.optimizer import Optimizer


class RMSprop(Optimizer):
    r"""RMSprop: gradients divided by a running root mean square.

    .. math:: v \leftarrow \alpha v + (1 - \alpha) g^2, \qquad p \leftarrow p - \eta \frac{g}{\sqrt{d} + \epsilon}

    with :math:`d = v`; ``centered`` keeps :math:`a \leftarrow \alpha a + (1 - \alpha) g` too and uses
    :math:`d = \max(v - a^2, 0)`. With momentum :math:`b \leftarrow \mu b + g / (\sqrt{d} + \epsilon)` and
    :math:`p \leftarrow p - \eta b`.

    PyTorch does not hold the centered variance at zero or above, and returns NaN when rounding makes it negative.
    TensorFlow's form is ``alpha=0.9, initial_square_avg=1.0, eps_inside_sqrt=True, lr_in_momentum=True``.

    Parameters
    ----------
    params : array, list, tuple, dict, or list of group dicts
        Arrays to update in place: writable, contiguous, float32, float64, float16 or bfloat16.
    lr : float or callable, default 1e-2
        Learning rate :math:`\eta`, >= 0, or a function of the step that returns it; the first step is 0.
    alpha : float, default 0.99
        Smoothing constant :math:`\alpha` in [0, 1).
    eps : float, default 1e-8
        :math:`\epsilon` >= 0.
    weight_decay : float, default 0.0
        L2: ``weight_decay * p`` is added to the gradient.
    momentum : float, default 0.0
        :math:`\mu` in [0, 1).
    centered : bool, default False
        Divide by the standard deviation instead of the root mean square.
    eps_inside_sqrt : bool, default False
        Divide by :math:`\sqrt{d + \epsilon}` instead.
    lr_in_momentum : bool, default False
        Multiply by the learning rate before the buffer: :math:`b \leftarrow \mu b + \eta g / (\ldots)`,
        :math:`p \leftarrow p - b`.
    initial_square_avg : float, default 0.0
        First value of :math:`v`, >= 0.
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
    Hinton, Neural Networks for Machine Learning, lecture 6e, 2012. Centered: Graves, arXiv:1308.0850.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.RMSprop(w, lr=0.1, alpha=0.75, eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.8, -1.8])
    """

    _initial_state = {"v": "initial_square_avg"}

    def __init__(
        self,
        params: Any,
        lr: float | Callable[[int], float] = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        eps_inside_sqrt: bool = False,
        lr_in_momentum: bool = False,
        initial_square_avg: float = 0.0,
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
        kind = "rmsprop_centered" if hypers["centered"] else "rmsprop"
        return f"{kind}_momentum" if hypers["momentum"] > 0 else kind
