"""AggMo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np

from schuss._core import validate
from schuss._core.hyperparameters import Fraction, Rate, WeightDecay, check_of
from schuss._core.optimizer import Optimizer


def _dampings(place: str, value: Any) -> tuple[float, ...]:
    """Two to four numbers in [0, 1)."""
    number = min(max(len(value) if isinstance(value, (tuple, list)) else int(np.size(value)), 2), 4)
    return validate.several(place, value, "two, three or four numbers >= 0 and < 1", [check_of(Fraction)] * number)


class AggMo(Optimizer):
    r"""Aggregated momentum: the mean of several momenta with different dampings.

    .. math::

       & b_i \leftarrow \beta_i b_i + g, \quad i = 1, \dots, K \\
       & p \leftarrow p - \frac{\eta}{K} \sum_i b_i

    Parameters
    ----------
    betas : two, three or four float or callable, default (0.0, 0.9, 0.99)
        :math:`\beta_i` in [0, 1). There is a state for each.

    References
    ----------
    Lucas et al., "Aggregated momentum: stability through passive damping", arXiv:1804.00325.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.AggMo(w, lr=0.1).step(np.array([1.0, 1.0]))
    True
    >>> w
    array([ 0.9, -2.1])
    """

    lr: Rate = 1e-3
    betas: Annotated[tuple[float, ...] | Callable[[int], tuple[float, ...]], validate.Schedulable(_dampings)] = (
        0.0,
        0.9,
        0.99,
    )
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False

    _fixed_momentum = "has several, which differ"
    _int8 = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return f"aggmo{len(hypers['betas'])}"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        betas = hypers["betas"]
        return {f"beta{i + 1}": betas[i] if i < len(betas) else 0.0 for i in range(4)} | {"share": 1 / len(betas)}
