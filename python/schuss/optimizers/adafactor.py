"""Adafactor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from schuss._arrays import checks
from schuss._core.hyperparameters import Falling, Range, Rate, WeightDecay
from schuss._core.kind import smallest_square
from schuss._core.optimizer import Optimizer

#: At least 1.
Threshold = Annotated[float, Range(low=1.0)]


class Adafactor(Optimizer):
    r"""Adafactor: the second moment of a matrix is factored into one number per row and one per column.

    With :math:`\beta = 1 - t^{\kappa}` the mean squares of the gradient's rows and columns are averaged in `r` and `c`,
    :math:`r_i \leftarrow \beta r_i + (1 - \beta) \overline{g_{i \cdot}^2}` and likewise :math:`c_j`; then

    .. math::

       & v_{ij} = \frac{r_i c_j}{\max(\bar r, \epsilon_1)} \\
       & u = \frac{g}{\sqrt{\max(v, \epsilon_1^2)}} \\
       & \rho = \min\left(\eta, \frac{1}{\sqrt t}\right) \\
       & p \leftarrow (1 - \eta \lambda) p
         - \max(\epsilon_2, \mathrm{rms}(p)) \, \rho \, \frac{u}{\max(1, \mathrm{rms}(u) / d)}

    This is PyTorch's form. The last two axes of an array are matrices, the others batch dimensions; arrays with fewer
    than two dimensions keep `v` for each element.

    Means are summed in memory order: they do not depend on CPU or threads, but an array in Fortran order may differ in
    the last bits from one with the same values in C order.

    Parameters
    ----------
    beta2_decay : float, default -0.8
        :math:`\kappa` <= 0.
    eps : pair of float, default (None, 1e-3)
        :math:`\epsilon_1, \epsilon_2` >= 0; None is the machine epsilon of the dtype that the update is computed in.
    d : float, default 1.0
        The clipping threshold for the root mean square of an update, >= 1.
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled: the parameter is multiplied by :math:`1 - \eta \lambda`, after
        `rms(p)` is computed.
    relative_step : bool, default False
        :math:`\rho = \min(10^{-2}, 1/\sqrt t)` without a learning rate, as in the authors' code; `lr` then only affects
        weight decay.

    References
    ----------
    Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear memory cost", arXiv:1804.04235.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([[1.0, -2.0], [3.0, -4.0]])
    >>> opt = schuss.Adafactor(w, lr=0.1)
    >>> opt.step(np.ones((2, 2)))
    True
    >>> opt.state_dict()["state"][0]["r"]
    array([[1.],
           [1.]])
    """

    lr: Rate = 1e-2
    beta2_decay: Falling = -0.8
    eps: tuple[float | None, float] = (None, 1e-3)
    d: Threshold = 1.0
    weight_decay: WeightDecay = 0.0
    relative_step: bool = False

    _decay_form = "decoupled"

    @classmethod
    def _array_rule(cls, hypers: Mapping[str, Any], array: np.ndarray) -> str:
        return "adafactor" if array.ndim > 1 else "adafactor_vector"

    @classmethod
    def _typed_rule_values(cls, hypers: Mapping[str, Any], dtype: np.dtype[Any]) -> Mapping[str, float]:
        first, second = hypers["eps"]
        if first is None:
            first = float(np.finfo(checks.compute_dtype(dtype)).eps)
        # Its square must not be 0.
        return cls._rule_values({**hypers, "eps": (max(first, math.sqrt(smallest_square(dtype))), second)})
