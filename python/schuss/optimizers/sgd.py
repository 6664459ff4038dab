"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from schuss._core.hyperparameters import ClosedFraction, Momentum, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class SGD(Optimizer):
    r"""Stochastic gradient descent: plain, with three forms of momentum, and two of Nesterov momentum.

    Without momentum :math:`p \leftarrow p - \eta g`. With momentum, depending on ``momentum_form``:

    - ``"heavy_ball"``: step 1 sets :math:`b = g`, later :math:`b \leftarrow \mu b + (1 - d) g`; then
      :math:`p \leftarrow p - \eta b`, or with ``nesterov`` :math:`p \leftarrow p - \eta (g + \mu b)`. This is PyTorch's
      form: dampening :math:`d` is not applied on step 1.
    - ``"velocity"``: :math:`b \leftarrow \mu b + \eta g`; then :math:`p \leftarrow p - b`, or with ``nesterov``
      :math:`p \leftarrow p - (\mu b + \eta g)`. This is Keras's form; it differs as soon as the learning rate changes.
    - ``"ema"``: :math:`b \leftarrow \mu b + (1 - \mu) g`; then :math:`p \leftarrow p - \eta b`, where ``debias``
      divides by :math:`1 - \mu^t`. PyTorch's ``dampening=momentum`` is not this: its step 1 is not dampened.

    Parameters
    ----------
    momentum : float or callable, default 0.0
        :math:`\mu` in [0, 1).
    dampening : float, default 0.0
        :math:`d` in [0, 1]; heavy ball only.
    nesterov : bool, default False
        Nesterov momentum, without a look-ahead gradient; needs momentum and no dampening.
    momentum_form : {"heavy_ball", "velocity", "ema"}, default "heavy_ball"
        One of the forms above.
    debias : bool, default False
        Bias correction for the EMA, which starts at zero.

    References
    ----------
    Polyak, "Some methods of speeding up the convergence of iteration methods", 1964. Nesterov, 1983. Sutskever et al.,
    "On the importance of initialization and momentum in deep learning", ICML 2013.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> opt = schuss.SGD(w, lr=0.1, momentum=0.9)
    >>> opt.step(np.array([1.0, 1.0]))
    True
    >>> w
    array([ 0.9, -2.1])
    """

    lr: Rate = 1e-3
    momentum: Momentum = 0.0
    dampening: ClosedFraction = 0.0
    weight_decay: WeightDecay = 0.0
    nesterov: bool = False
    momentum_form: Literal["heavy_ball", "velocity", "ema"] = "heavy_ball"
    debias: bool = False

    _int8 = True
    _by_rows = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "momentum" if hypers["momentum"] > 0 else "sgd"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        form = hypers["momentum_form"]
        forms = {"velocity": form == "velocity", "ema": form == "ema", "quasi_hyperbolic": False}
        return {**hypers, **forms, "nu": 1.0}

    @classmethod
    def _check(cls, hypers: Mapping[str, Any]) -> None:
        form = hypers["momentum_form"]
        if hypers["nesterov"] and (hypers["momentum"] == 0 or hypers["dampening"] != 0 or form == "ema"):
            raise ValueError(
                'nesterov=True needs momentum > 0, dampening=0 and momentum_form "heavy_ball" or "velocity"'
            )
        if hypers["dampening"] != 0 and form != "heavy_ball":
            raise ValueError(f'dampening belongs to momentum_form "heavy_ball", not {form!r}')
        if hypers["debias"] and form != "ema":
            raise ValueError(f'debias=True belongs to momentum_form "ema", not {form!r}')
