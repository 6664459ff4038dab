"""Nesterov's accelerated gradient in the form that looks ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from schuss import _schuss, _tree
from schuss._group import ParamGroup
from schuss._optimizer import Optimizer

# Where a step's values are in the layout of a group: a schedule may set both.
_RATE, _MOMENTUM = 1, 6 + _schuss.rules()["momentum"]["hypers"].index("momentum")


class NAG(Optimizer):
    r"""Nesterov's accelerated gradient, with the gradient taken at the look-ahead point.

    A step is taken with a closure: the parameters move to :math:`p - c b`, the closure returns the gradients there, and
    the parameters move back exactly. Then :math:`b \leftarrow \mu b + g`, or
    :math:`b \leftarrow \mu b + (1 - \mu) g` with ``form="ema"``, and :math:`p \leftarrow p - \eta b`.

    On any smooth function the heavy ball with :math:`c = \eta \mu` visits, at its look-ahead points, the iterates of
    ``SGD(nesterov=True)``, which is PyTorch's form.

    Parameters
    ----------
    params : array, list, tuple, dict, or list of group dicts
        Arrays to update in place: writable, contiguous, float32, float64, float16 or bfloat16.
    lr : float or callable, default 1e-3
        Learning rate :math:`\eta`, >= 0, or a function of the step that returns it; the first step is 0.
    momentum : float, default 0.9
        :math:`\mu` in (0, 1).
    form : {"heavy_ball", "ema"}, default "heavy_ball"
        Which momentum.
    lookahead : float, optional
        :math:`c` >= 0; by default :math:`\eta \mu` for the heavy ball and :math:`\eta` for the EMA. Some texts use
        :math:`\mu` alone.
    weight_decay : float, default 0.0
        L2: ``weight_decay * p`` is added to the gradient, with p where it is and not at the look-ahead point; for that,
        add it in the closure.
    maximize : bool, default False
        Ascend instead of descend.
    max_grad_norm : float, optional
        Scale all gradients so that their global norm is at most this, inside the step.
    nonfinite : {"propagate", "skip", "error"}, default "propagate"
        What to do about NaN and infinities in gradients.

    Raises
    ------
    TypeError, ValueError
        An array or a hyperparameter cannot be used; the message names it.

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

    _single_rule = False

    def __init__(
        self,
        params: Any,
        lr: float | Callable[[int], float] = 1e-3,
        momentum: float = 0.9,
        form: str = "heavy_ball",
        lookahead: float | None = None,
        weight_decay: float = 0.0,
        maximize: bool = False,
        *,
        max_grad_norm: float | None = None,
        nonfinite: str = "propagate",
    ) -> None:
        self._setup(locals())
        self._looking = threading.Lock()

    def step(
        self, closure: Callable[[], Any] | None = None, *, grad_scale: float = 1.0, zero_grads: bool = False
    ) -> bool:
        """Takes one step; if the closure raises, parameters and state are as before.

        Parameters
        ----------
        closure : callable
            Returns the gradients at the present values of the parameters, in the structure of the parameters.
        grad_scale : float, default 1.0
            What gradients are divided by first.
        zero_grads : bool, default False
            Set the gradients to zero once they have been used.

        Returns
        -------
        bool
            Whether the step was taken; it is not when ``nonfinite="skip"`` and a gradient has a NaN or an infinity.

        Raises
        ------
        TypeError, ValueError
            There is no closure, or what it returns are no gradients; nothing has changed then.
        """
        if not callable(closure):
            raise TypeError("NAG needs a closure: opt.step(lambda: the gradients at the present parameters)")
        if not self._looking.acquire(blocking=False):
            raise RuntimeError("this optimizer is in the middle of a step; step it from one place at a time")
        try:
            return super().step(self._look_ahead(closure, zero_grads), grad_scale=grad_scale, zero_grads=zero_grads)
        finally:
            self._looking.release()

    def _look_ahead(self, closure: Callable[[], Any], zero_grads: bool) -> Any:
        self._check_idle()
        ahead = [self._coefficient(group, group.packed_at(self.step_count)) for group in self.param_groups]
        for i, (param, (buffer,)) in enumerate(zip(self._params, self._states, strict=True)):
            if not param.flags.writeable or param.shape != buffer.shape:
                self._explain_changed(i)
        saved = [param.copy() for param in self._params]
        try:
            for param, (group, _), (buffer,) in zip(self._params, self._suffixes, self._states, strict=True):
                with np.errstate(all="ignore"):
                    np.subtract(param, ahead[group] * buffer, out=param, casting="unsafe")
            grads = closure()
            self._explain_structure(grads)
            # A gradient that shares memory with a parameter must keep what it is here.
            arrays = [leaf for _, _, leaf in _tree.leaves(self._root(), grads, "grads", "params")]
            for i, array in enumerate(arrays):
                if not isinstance(array, np.ndarray) and hasattr(array, "__array__"):
                    array = np.asarray(array)
                if isinstance(array, np.ndarray) and self._is_written(array):
                    arrays[i] = self._gradient(i, array, True, zero_grads)
            return _tree.build(self._root(), arrays.__getitem__)
        finally:
            for param, value in zip(self._params, saved, strict=True):
                param[...] = value

    @staticmethod
    def _coefficient(group: ParamGroup, packed: list[float]) -> float:
        if group["lookahead"] is not None:
            return float(group["lookahead"])
        return packed[_RATE] * packed[_MOMENTUM] if group["form"] == "heavy_ball" else packed[_RATE]

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "momentum"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        off = dict.fromkeys(("dampening", "velocity", "nesterov", "debias"), 0.0)
        return {**off, "momentum": hypers["momentum"], "ema": hypers["form"] == "ema"}

    @classmethod
    def _check(cls, hypers: Mapping[str, Any]) -> None:
        if hypers["momentum"] == 0:
            raise ValueError("NAG needs momentum > 0; without it, it is SGD")
