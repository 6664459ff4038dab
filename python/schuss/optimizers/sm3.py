"""SM3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from schuss._core.hyperparameters import Fraction, Momentum, Rate
from schuss._core.optimizer import Optimizer


class SM3(Optimizer):
    r"""SM3-II: Adagrad with one number for each row and column of a matrix instead of one for each element.

    .. math::

       & \nu = \min(r_i, c_j) + g^2, \quad \text{with } \beta > 0 \text{: }
         \nu = \beta \min(r_i, c_j) + (1 - \beta) g^2 \\
       & p \leftarrow p - \eta \frac{g}{\sqrt{\nu + \epsilon}} \\
       & r_i \leftarrow \max_j \nu, \quad c_j \leftarrow \max_i \nu

    with the states `r` and `c`, which do not become smaller where :math:`\beta > 0`. Where :math:`\nu` is 0 nothing
    moves. The last two axes of an array are matrices, the others batch dimensions: other packages have a number for
    each index of each axis, which differs for arrays of three and more axes. Arrays with fewer than two dimensions keep
    `v` for each element, as Adagrad does.

    Parameters
    ----------
    momentum : float or callable, default 0.0
        :math:`\mu` in [0, 1): `m` averages the updates,
        :math:`m \leftarrow \mu m + (1 - \mu) g / \sqrt{\nu + \epsilon}`, and :math:`\eta m` is subtracted instead; 0
        keeps no `m`.
    beta : float, default 0.0
        :math:`\beta` in [0, 1): averages squares; 0 adds them up.
    eps : float, default 1e-30
        :math:`\epsilon` >= 0; 0 counts as the smallest number.

    References
    ----------
    Anil, Gupta, Koren and Singer, "Memory-efficient adaptive optimization", arXiv:1901.11150.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([[1.0, -2.0], [3.0, -4.0]])
    >>> schuss.SM3(w, lr=0.5).step(np.array([[3.0, -4.0], [0.0, 1.0]]))
    True
    >>> w
    array([[ 0.5, -1.5],
           [ 3. , -4.5]])
    """

    lr: Rate = 0.1
    momentum: Momentum = 0.0
    beta: Fraction = 0.0
    eps: float = 1e-30

    _eps_in_square = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "sm3_momentum" if hypers["momentum"] > 0 else "sm3"

    @classmethod
    def _array_rule(cls, hypers: Mapping[str, Any], array: np.ndarray) -> str:
        rule = cls._rule(hypers)
        return rule if array.ndim > 1 else rule.replace("sm3", "sm3_vector")
