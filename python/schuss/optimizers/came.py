"""CAME."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from schuss._core.hyperparameters import Betas3, Positive, Rate, WeightDecay
from schuss._core.kind import LEAST_ADDED
from schuss._core.optimizer import Optimizer


class CAME(Optimizer):
    r"""CAME: Adafactor with momentum, smaller steps where updates differ from their average.

    `r` and `c` average the means of :math:`g^2 + \epsilon_1` over rows and columns with :math:`\beta_2`; then

    .. math::

       & u = g \Big/ \sqrt{\frac{r_i c_j}{\bar r}}, \quad
         u \leftarrow \frac{u}{\max(1, \mathrm{rms}(u) / \tau)} \\
       & m \leftarrow \beta_1 m + (1 - \beta_1) u \\
       & p \leftarrow (1 - \eta \lambda) p - \eta \, m \Big/ \sqrt{\frac{r'_i c'_j}{\bar{r'}}}

    where `rr` and `rc`, :math:`r'` and :math:`c'`, average the means of :math:`(u - m)^2 + \epsilon_2` over rows and
    columns with :math:`\beta_3`, and `clip_threshold` is :math:`\tau`. The last two axes of an array are matrices, the
    others batch dimensions; arrays with fewer than two dimensions keep `v` for each element, and
    :math:`p \leftarrow (1 - \eta \lambda) p - \eta m`.

    Parameters
    ----------
    betas : three floats or callable, default (0.9, 0.999, 0.9999)
        :math:`\beta_1, \beta_2, \beta_3` in [0, 1).
    eps : pair of float, default (1e-30, 1e-16)
        :math:`\epsilon_1, \epsilon_2` >= 0; 0 counts as 1e-31.
    clip_threshold : float, default 1.0
        :math:`\tau` > 0.
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled.

    References
    ----------
    Luo et al., "CAME: confidence-guided adaptive memory efficient optimization", arXiv:2307.02047.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.CAME(w, lr=0.5, betas=(0.0, 0.0, 0.0)).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.5, -1.5])
    """

    lr: Rate = 2e-4
    betas: Betas3 = (0.9, 0.999, 0.9999)
    eps: tuple[float, float] = (1e-30, 1e-16)
    clip_threshold: Positive = 1.0
    weight_decay: WeightDecay = 0.0

    _decay_form = "decoupled"

    @classmethod
    def _array_rule(cls, hypers: Mapping[str, Any], array: np.ndarray) -> str:
        return "came" if array.ndim > 1 else "came_vector"

    @classmethod
    def _typed_rule_values(cls, hypers: Mapping[str, Any], dtype: np.dtype[Any]) -> Mapping[str, float]:
        return cls._rule_values({**hypers, "eps": tuple(max(eps, LEAST_ADDED) for eps in hypers["eps"])})
