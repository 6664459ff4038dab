"""Lion."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from schuss._core.hyperparameters import Betas, Cautious, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class Lion(Optimizer):
    r"""Lion: the sign of an interpolated momentum.

    .. math::

       & p \leftarrow (1 - \eta \lambda) p - \eta \, \mathrm{sign}(\beta_1 m + (1 - \beta_1) g) \\
       & m \leftarrow \beta_2 m + (1 - \beta_2) g

    Every element moves by :math:`\eta`, so use a learning rate three to ten times smaller than for Adam, and weight
    decay larger by the same factor. The sign of 0 is 0.

    Parameters
    ----------
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled.

    References
    ----------
    Chen et al., "Symbolic discovery of optimization algorithms", arXiv:2302.06675.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Lion(w, lr=0.5).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.5, -1.5])
    """

    lr: Rate = 1e-4
    betas: Betas = (0.9, 0.99)
    weight_decay: WeightDecay = 0.0
    cautious: Cautious = None

    _old_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"cautious": None})
    _decay_form = "decoupled"
    _int8 = True
    _by_rows = True

    @classmethod
    def _takes_rows(cls, hypers: Mapping[str, Any], array: np.ndarray) -> bool:
        return hypers["cautious"] is None
