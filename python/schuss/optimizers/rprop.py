"""Rprop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from schuss._core.hyperparameters import Range, Rate
from schuss._core.optimizer import Optimizer

#: What shrinks a step, and what makes it grow.
Factors = tuple[Annotated[float, Range(high=1.0, open_low=True)], Annotated[float, Range(low=1.0, open_low=True)]]


class Rprop(Optimizer):
    r"""Rprop: a step size for each element, which depends on signs only. For gradients of all data, not of batches.

    .. math::

       & \Delta \leftarrow \Delta \cdot \begin{cases}
         \eta^+ & \text{if } g \, g_{prev} > 0 \\
         \eta^- & \text{if } g \, g_{prev} < 0, \text{ and then } g = 0 \\
         1 & \text{otherwise} \end{cases}, \quad \text{clipped to } [\Delta_{min}, \Delta_{max}] \\
       & p \leftarrow p - \Delta \, \mathrm{sign}(g)

    That is iRprop-; all step sizes are the learning rate in the first step, and later only `etas` changes them. Optax
    (0.2.8) applies each step one step late.

    Parameters
    ----------
    lr : float or callable, default 1e-2
        The first step size, >= 0; of a callable, its first value.
    etas : pair of float, default (0.5, 1.2)
        :math:`\eta^-` in (0, 1) and :math:`\eta^+` > 1.
    step_sizes : pair of float, default (1e-6, 50.0)
        :math:`\Delta_{min}` and :math:`\Delta_{max}`, > 0.

    References
    ----------
    Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm", 1993.
    Igel and Hüsken, "Improving the Rprop learning algorithm", 2000.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Rprop(w, lr=0.5).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.5, -1.5])
    """

    lr: Rate = 1e-2
    etas: Factors = (0.5, 1.2)
    step_sizes: Annotated[tuple[float, float], Range(open_low=True)] = (1e-6, 50.0)

    @classmethod
    def _check(cls, hypers: Mapping[str, Any]) -> None:
        low, high = hypers["step_sizes"]
        if low > high:
            raise ValueError(f"step_sizes must be the least and the largest, got {hypers['step_sizes']!r}")
