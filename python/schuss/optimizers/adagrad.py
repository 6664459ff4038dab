"""Adagrad."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from schuss._core.hyperparameters import Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class Adagrad(Optimizer):
    r"""Adagrad: each element's learning rate falls with the sum of its squared gradients.

    .. math::

       & s \leftarrow s + g^2 \\
       & p \leftarrow p - \frac{\eta}{1 + (t-1)\,\mathrm{lr\_decay}} \frac{g}{\sqrt{s} + \epsilon}

    Parameters
    ----------
    lr_decay : float, default 0.0
        Learning-rate decay, >= 0.
    initial_accumulator_value : float, default 0.0
        Initial value of :math:`s`, >= 0.
    eps_inside_sqrt : bool, default False
        Divide by :math:`\sqrt{s + \epsilon}` instead, as Keras and Optax do with an accumulator that starts at 0.1.
    row_wise : bool, default False
        One :math:`s` for each row, a slice along the first axis: :math:`s \leftarrow s + \operatorname{mean}(g^2)` over
        the row. It is FBGEMM's row-wise Adagrad for tables of embeddings; see :meth:`Optimizer.step_rows`.

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

    lr: Rate = 1e-2
    lr_decay: float = 0.0
    weight_decay: WeightDecay = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10
    eps_inside_sqrt: bool = False
    row_wise: bool = False

    _by_rows = True
    _old_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"row_wise": False})

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "adagrad_row_wise" if hypers["row_wise"] else "adagrad"
