"""ASGD."""

from __future__ import annotations

from typing import Any

import numpy as np

from schuss._arrays import checks, trees
from schuss._core import state
from schuss._core.hyperparameters import Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class ASGD(Optimizer):
    r"""Averaged gradient descent: the average of all parameters from step :math:`t_0` on.

    .. math::

       & p \leftarrow (1 - \lambda \eta_t) p - \eta_t g \\
       & a \leftarrow a + \mu_t (p - a), \quad \mu_t = \frac{1}{\max(1, t - 1 - t_0)} \\
       & \eta_1 = \eta, \quad \eta_{t+1} = \frac{\eta}{(1 + \lambda \eta t)^\alpha}

    `averaged` returns the averages, which are in the state `ax`. Each step computes the rate of the next one, the state
    `eta`, one float64 number for each array: a learning rate that is changed acts one step late, as in PyTorch, where
    `eta` and :math:`\mu_t` are float32.

    Parameters
    ----------
    lambd : float, default 1e-4
        :math:`\lambda` >= 0, a decay of the parameters and of the rate.
    alpha : float, default 0.75
        :math:`\alpha` >= 0, the power by which the rate falls.
    t0 : float, default 1e6
        :math:`t_0` >= 0: until then the average is the parameter itself.

    References
    ----------
    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30, 1992.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> opt = schuss.ASGD(w, lr=0.1, lambd=0.0, t0=0.0)
    >>> for _ in range(3):
    ...     taken = opt.step(np.array([1.0, 1.0]))
    >>> w
    array([ 0.7, -2.3])
    >>> opt.averaged()
    array([ 0.75, -2.25])
    """

    lr: Rate = 1e-2
    lambd: float = 1e-4
    alpha: float = 0.75
    t0: float = 1e6
    weight_decay: WeightDecay = 0.0

    def averaged(self) -> Any:
        """The averages as new arrays in the structure of the parameters; for groups, a list with one for each group."""
        arrays = [np.array(checks.shown(own["ax"])) for own in state.named_states(self)]
        structures = [trees.build(template, arrays.__getitem__) for template in self._templates]
        return structures if self._grouped else structures[0]
