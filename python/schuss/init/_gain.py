"""The gain of weights before each nonlinearity. It knows no initializer."""

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
    r"""The factor that scales the weights before a nonlinearity, so that activations keep their variance.

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
        The nonlinearity after the layer; ``"linear"`` and ``"conv"`` mean none.
    a : float, default 0.0
        The slope of ``leaky_relu`` below 0, >= 0. PyTorch's ``calculate_gain`` has 0.01 by default.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        The name is unknown, or `a` is not a number >= 0, or `a` is given without ``leaky_relu``.

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
