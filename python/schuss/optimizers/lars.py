"""LARS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from schuss._core.optimizer import Optimizer


class LARS(Optimizer):
    r"""LARS: momentum whose step is scaled for each array (layer) by a trust ratio.

    .. math:: r = \frac{\tau \lVert p \rVert}{\lVert g \rVert + \lambda \lVert p \rVert + \epsilon}, \qquad
       b \leftarrow \mu b + \eta r (g + \lambda p), \qquad p \leftarrow p - b

    The ratio is 1 where a norm is 0, where ``adapt`` is off, and without weight decay unless ``always_adapt``. Step 1
    copies into the buffer, so dampening does not act then, as in `SGD`.

    Norms are added up in the order of memory: they do not depend on CPU or threads, but an array in Fortran order may
    differ in the last bits from one with the same values in C order.

    Biases and other arrays of one dimension usually go into a group with ``adapt=False, weight_decay=0``:
    `schuss.split_groups` makes these groups. Give them a learning rate of their own, since this one is meant to be
    scaled down by a ratio: ``schuss.split_groups(params, lr=0.01)``.

    Parameters
    ----------
    params : array, list, tuple, dict, or list of group dicts
        Arrays to update in place: writable, contiguous, float32, float64, float16 or bfloat16.
    lr : float or callable
        Learning rate :math:`\eta`, >= 0, or a function of the step that returns it; the first step is 0. No default:
        it grows with the batch.
    momentum : float, default 0.9
        :math:`\mu` in [0, 1).
    weight_decay : float, default 0.0
        :math:`\lambda` >= 0.
    trust_coefficient : float, default 1e-3
        :math:`\tau` >= 0.
    eps : float, default 1e-8
        :math:`\epsilon` >= 0.
    nesterov : bool, default False
        Step by :math:`\mu b` plus the newest term instead of by :math:`b`.
    dampening : float, default 0.0
        The newest term enters the buffer times one minus this; in [0, 1].
    trust_clip : bool, default False
        LARC's clip: the ratio is :math:`\min(r / \eta, 1)`.
    always_adapt : bool, default False
        Use the ratio without weight decay too.
    lr_in_momentum : bool, default True
        ``False`` is timm's form: :math:`b \leftarrow \mu b + r (g + \lambda p)`, :math:`p \leftarrow p - \eta b`.
    adapt : bool, default True
        Use the ratio at all; meant for groups.
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

    def __init__(
        self,
        params: Any,
        lr: float | Callable[[int], float],
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        eps: float = 1e-8,
        nesterov: bool = False,
        dampening: float = 0.0,
        trust_clip: bool = False,
        always_adapt: bool = False,
        lr_in_momentum: bool = True,
        adapt: bool = True,
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
        return "own"

    @classmethod
    def _takes_int8(cls, hypers: Mapping[str, Any]) -> bool:
        return True
