"""Sophia-G and Sophia-H."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schuss._core.hyperparameters import Betas, Positive, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class _Sophia(Optimizer):
    """The base of both: the Hessian's diagonal comes from the caller, every few steps."""

    _decay_form = "decoupled"

    def update_hessian(self, estimate: Any) -> None:
        r"""Averages an estimate of the Hessian's diagonal: :math:`h \leftarrow \beta_2 h + (1 - \beta_2) \hat h`.

        Call it before a step, every ten steps or so. It is no step: nothing is counted, clipped or scaled, and
        parameters do not change. ``nonfinite`` is about gradients: a NaN in an estimate stays in :math:`h`, so leave
        such an estimate out.

        Parameters
        ----------
        estimate : structure of arrays
            :math:`\hat h` in the structure of the parameters, like gradients.

        Raises
        ------
        TypeError, ValueError
            The arrays do not fit, or share memory with a state; nothing has changed.
        RuntimeError
            Another thread is stepping, saving or loading the optimizer.
        """
        if estimate is None:
            raise TypeError("update_hessian needs an estimate, in the structure of the parameters")
        with self._exclusive():
            self._arguments = "estimate"
            try:
                self._backend.run(self, "update_hessian", estimate, [])
            finally:
                self._arguments = "grads"


class SophiaG(_Sophia):
    r"""Sophia-G: momentum divided by the Hessian's diagonal and clipped to 1, with Gauss-Newton estimates.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & p \leftarrow (1 - \eta \lambda) p
         - \eta \operatorname{sign}(m) \min\left(\frac{|m|}{\rho B h + \epsilon}, 1\right)

    The diagonal :math:`h` starts at 0, and :meth:`update_hessian` averages estimates of it, in the paper the squared
    gradients of a loss with labels sampled from the model, times the batch size. Until the first one each step is a
    sign. Estimates must be >= 0: a step with a negative :math:`h` goes uphill, and is not bounded.

    The authors' ``update_hessian`` takes gradients and squares them, without the batch size: pass ``bs`` here then.

    Parameters
    ----------
    betas : pair of float or callable, default (0.965, 0.99)
        :math:`\beta_1, \beta_2` in [0, 1).
    rho : float, default 0.04
        :math:`\rho` > 0.
    bs : float, default 1.0
        :math:`B` > 0, a batch size that the estimates leave out.
    weight_decay : float or callable, default 0.1
        :math:`\lambda` >= 0, decoupled.

    References
    ----------
    Liu et al., "Sophia: a scalable stochastic second-order optimizer for language model pre-training",
    arXiv:2305.14342.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> opt = schuss.SophiaG(w, lr=0.1, betas=(0.0, 0.0), rho=1.0, weight_decay=0.0)
    >>> opt.update_hessian(np.array([8.0, 1.0]))
    >>> opt.step(np.array([4.0, -4.0]))
    True
    >>> w
    array([ 0.95, -1.9 ])
    """

    lr: Rate = 1e-4
    betas: Betas = (0.965, 0.99)
    rho: Positive = 0.04
    bs: Positive = 1.0
    eps: float = 1e-15
    weight_decay: WeightDecay = 0.1

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {**super()._rule_values(hypers), "scale": hypers["rho"] * hypers["bs"], "clip": 1.0}


class SophiaH(_Sophia):
    r"""Sophia-H: momentum divided by the Hessian's diagonal and clipped, with Hutchinson estimates.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & p \leftarrow (1 - \eta \lambda) p - \eta \min\left(\max\left(\frac{m}{\max(h, \epsilon)}, -c\right), c\right)

    The diagonal :math:`h` starts at 0, and :meth:`update_hessian` averages estimates of it, in the paper
    :math:`u \odot H u` for a random vector :math:`u`. Until the first one each step is a sign. The paper's learning
    rate is :math:`\eta c`, its :math:`\gamma` is :math:`c`. Optax corrects the bias of :math:`m` and updates :math:`h`
    after the step.

    Parameters
    ----------
    betas : pair of float or callable, default (0.96, 0.99)
        :math:`\beta_1, \beta_2` in [0, 1).
    clip : float, default 0.01
        :math:`c` > 0.
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled.

    References
    ----------
    Liu et al., "Sophia: a scalable stochastic second-order optimizer for language model pre-training",
    arXiv:2305.14342.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> opt = schuss.SophiaH(w, lr=0.1, betas=(0.0, 0.0), clip=1.0)
    >>> opt.update_hessian(np.array([8.0, 1.0]))
    >>> opt.step(np.array([4.0, -4.0]))
    True
    >>> w
    array([ 0.95, -1.9 ])
    """

    lr: Rate = 0.06
    betas: Betas = (0.96, 0.99)
    clip: Positive = 0.01
    eps: float = 1e-12
    weight_decay: WeightDecay = 0.0

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {**super()._rule_values(hypers), "scale": 1.0}
