"""LAMB."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from schuss._core.optimizer import Optimizer


class LAMB(Optimizer):
    r"""LAMB: Adam whose step is scaled for each array (layer) by a trust ratio.

    .. math:: m \leftarrow \beta_1 m + \beta_3 g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
       u = \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon} + \lambda p, \quad
       p \leftarrow p - \eta \frac{\lVert p \rVert}{\lVert u \rVert} u

    with :math:`\beta_3 = 1 - \beta_1`, or 1 without ``grad_averaging``. The ratio is 1 where a norm is 0, where
    ``adapt`` is off, and without weight decay unless ``always_adapt``. The same as NVIDIA's FusedLAMB and timm's Lamb,
    whose gradients are clipped to a global norm of 1 first too.

    Norms are added up in the order of memory: they do not depend on CPU or threads, but an array in Fortran order may
    differ in the last bits from one with the same values in C order.

    Biases and other arrays of one dimension usually go into a group with ``adapt=False, weight_decay=0``:
    `schuss.split_groups` makes these groups.

    Parameters
    ----------
    params : array, list, tuple, dict, or list of group dicts
        Arrays to update in place: writable, contiguous, float32, float64, float16 or bfloat16.
    lr : float or callable, default 1e-3
        Learning rate :math:`\eta`, >= 0, or a function of the step that returns it; the first step is 0.
    betas : pair of float, default (0.9, 0.999)
        :math:`\beta_1, \beta_2` in [0, 1).
    eps : float, default 1e-6
        :math:`\epsilon` >= 0.
    weight_decay : float, default 1e-2
        :math:`\lambda` >= 0.
    bias_correction : bool, default True
        ``False`` leaves out :math:`1 - \beta^t` in both places.
    grad_averaging : bool, default True
        Which :math:`\beta_3`.
    always_adapt : bool, default False
        Use the ratio without weight decay too.
    trust_clip : bool, default False
        Hold the ratio at 1 or below.
    adapt : bool, default True
        Use the ratio at all; meant for groups.
    maximize : bool, default False
        Ascend instead of descend.
    max_grad_norm : float, optional, default 1.0
        Scale all gradients so that their global norm is at most this, inside the step; None leaves them.
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
    You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", arXiv:1904.00962.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([3.0, -4.0])
    >>> schuss.LAMB(w, lr=0.1, eps=0.0, weight_decay=0.0, always_adapt=True).step(np.array([3.0, -4.0]))
    True
    >>> w.round(4)
    array([ 2.6464, -3.6464])
    """

    def __init__(
        self,
        params: Any,
        lr: float | Callable[[int], float] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 1e-2,
        bias_correction: bool = True,
        grad_averaging: bool = True,
        always_adapt: bool = False,
        trust_clip: bool = False,
        adapt: bool = True,
        maximize: bool = False,
        *,
        max_grad_norm: float | None = 1.0,
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
