"""How much larger weights must be in front of each nonlinearity."""

from __future__ import annotations

import math
from typing import Literal

from schuss._core import validate
from schuss._core.hyperparameters import check_of

Nonlinearity = Literal["linear", "conv", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
_GAINS: dict[Nonlinearity, float] = {
    "linear": 1.0,
    "conv": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "leaky_relu": math.sqrt(2.0),
    "selu": 0.75,
}
_NONLINEARITY = check_of(Nonlinearity)


def gain(nonlinearity: Nonlinearity, a: float = 0.0) -> float:
    r"""The factor by which weights in front of a nonlinearity are larger, so that activations keep their size.

    ==================================  =============================
    nonlinearity                        gain
    ==================================  =============================
    ``linear``, ``conv``, ``sigmoid``   1
    ``tanh``                            :math:`5 / 3`
    ``relu``                            :math:`\sqrt{2}`
    ``leaky_relu``                      :math:`\sqrt{2 / (1 + a^2)}`
    ``selu``                            :math:`3 / 4`
    ==================================  =============================

    Parameters
    ----------
    nonlinearity : {"linear", "conv", "sigmoid", "tanh", "relu", "leaky_relu", "selu"}
        What follows the layer; ``"linear"`` and ``"conv"`` for nothing.
    a : float, default 0.0
        The slope of ``leaky_relu`` below 0, >= 0. PyTorch's ``calculate_gain`` has 0.01 by default.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        The name is none of these, or `a` is not a number >= 0, or there is an `a` without ``leaky_relu``.

    References
    ----------
    He et al., arXiv:1502.01852. The values for tanh and selu are PyTorch's.

    Examples
    --------
    >>> from schuss import init
    >>> round(init.gain("relu"), 6)
    1.414214
    """
    name: Nonlinearity = _NONLINEARITY("nonlinearity", nonlinearity)
    slope = validate.number("a", a)
    if name == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + slope * slope))
    if slope != 0:
        raise ValueError(f"a is the slope of 'leaky_relu' and has no meaning for {name!r}, got {a!r}")
    return _GAINS[name]
