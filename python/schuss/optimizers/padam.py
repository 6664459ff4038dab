"""PAdam."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from schuss._core.hyperparameters import Betas, Range, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class PAdam(Optimizer):
    r"""PAdam: Adam with a power of its denominator, between Adam and gradient descent with momentum.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
       & p \leftarrow p - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m}{(\sqrt{v} + \epsilon)^{2 \pi}}

    with the exponent :math:`\pi`. A value of 0.5 is Adam with ``eps_form="keras"``. The default, 0.25, takes a square
    root and is faster than other values.

    Parameters
    ----------
    partial : float, default 0.25
        :math:`\pi` in (0, 0.5].
    amsgrad : bool, default False
        Divide by the power of the largest :math:`v` so far, as the authors' code does.

    References
    ----------
    Chen et al., "Closing the generalization gap of adaptive gradient methods in training deep neural networks",
    arXiv:1806.06763.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.PAdam(w, lr=0.1, betas=(0.0, 0.0), eps=0.0).step(np.array([4.0, -9.0]))
    True
    >>> w
    array([ 0.8, -1.7])
    """

    lr: Rate = 0.1
    betas: Betas = (0.9, 0.999)
    partial: Annotated[float, Range(high=0.5, open_low=True, closed_high=True)] = 0.25
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False
    amsgrad: bool = False

    _int8 = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "padam_amsgrad" if hypers["amsgrad"] else "padam"
