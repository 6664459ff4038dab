"""Nesterov's accelerated gradient, in the look-ahead form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from schuss import _schuss
from schuss._core.hyperparameters import Momentum, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class NAG(Optimizer):
    r"""Nesterov's accelerated gradient, with the gradient taken at the look-ahead point.

    ``step`` takes a closure: the parameters move to :math:`p - c b`, the closure returns the gradients there, and the
    parameters are restored exactly. Then :math:`b \leftarrow \mu b + g`, or
    :math:`b \leftarrow \mu b + (1 - \mu) g` with ``form="ema"``, and :math:`p \leftarrow p - \eta b`.

    On any smooth function, the look-ahead points of the heavy ball with :math:`c = \eta \mu` are the iterates of
    ``SGD(nesterov=True)``, which is PyTorch's form.

    Parameters
    ----------
    momentum : float or callable, default 0.9
        :math:`\mu` in (0, 1).
    form : {"heavy_ball", "ema"}, default "heavy_ball"
        Form of the momentum.
    lookahead : float, optional
        :math:`c` >= 0; by default :math:`\eta \mu` for the heavy ball and :math:`\eta` for the EMA. Some texts use
        :math:`\mu` alone.
    weight_decay : float or callable, default 0.0
        L2: ``weight_decay * p`` is added to the gradient, with p from before the step, not at the look-ahead point.
        ``SGD(nesterov=True, weight_decay=...)``, or a penalty in the loss, use the look-ahead point: for that, leave
        this at 0 and return ``g + weight_decay * p`` from the closure.

    References
    ----------
    Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k^2)", 1983.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([4.0])
    >>> opt = schuss.NAG(w, lr=0.5, momentum=0.5)
    >>> for _ in range(2):
    ...     taken = opt.step(lambda: w)  # the gradient of w**2 / 2, where w has been moved to
    >>> w
    array([0.5])
    """

    lr: Rate = 1e-3
    momentum: Momentum = 0.9
    form: Literal["heavy_ball", "ema"] = "heavy_ball"
    lookahead: float | None = None
    weight_decay: WeightDecay = 0.0

    _int8 = True
    _single_rule = False
    _on_gpu = False

    def step(  # pyright: ignore[reportIncompatibleMethodOverride] - a closure in the place of gradients
        self,
        closure: Callable[[], Any] | None = None,
        *,
        grad_scale: float = 1.0,
        zero_grads: bool = False,
        partial: bool = False,
    ) -> bool:
        """Takes one step; if the closure raises, parameters and state are unchanged.

        Parameters
        ----------
        closure : callable
            Returns the gradients at the current values of the parameters, in the structure of the parameters; None
            leaves an array alone.
        grad_scale : float, default 1.0
            Gradients are divided by this first.
        zero_grads : bool, default False
            Set the gradients to zero once they have been used.
        partial : bool, default False
            Whether dicts of gradients may lack keys; what is missing is as None.

        Returns
        -------
        bool
            Whether the step was taken; False if ``nonfinite="skip"`` and a gradient has a NaN or an infinity.

        Raises
        ------
        TypeError, ValueError
            There is no closure, or it does not return valid gradients; nothing has changed.
        FloatingPointError
            A gradient has a NaN or an infinity and ``nonfinite="error"``; nothing has changed.
        """
        if not callable(closure):
            raise TypeError("NAG needs a closure: opt.step(lambda: the gradients at the present parameters)")
        scale, zero, part = self._step_options(grad_scale, zero_grads, partial)
        with self._exclusive(), _schuss.AtLookAhead(self):
            grads = closure()
            # The step itself restores the parameters, chunk by chunk while it updates them.
            return super().step(
                self._without_overlap(grads, zero, part), grad_scale=scale, zero_grads=zero, partial=part
            )

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        distance = hypers["lookahead"]
        values = {"ema": hypers["form"] == "ema", "lookahead": distance or 0.0, "automatic": distance is None}
        return {"momentum": hypers["momentum"], **values}

    @classmethod
    def _check(cls, hypers: Mapping[str, Any]) -> None:
        if hypers["momentum"] == 0:
            raise ValueError("NAG needs momentum > 0; without it, it is SGD")
