"""Nesterov's accelerated gradient in the form that looks ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from schuss import _schuss
from schuss._arrays import formats, trees
from schuss._core.group import ParamGroup
from schuss._core.hyperparameters import Fraction, Rate
from schuss._core.optimizer import Optimizer
from schuss._core.rules import RULES

# Where a step's values are in the layout of a group: a schedule may set both.
_RATE, _MOMENTUM = 1, 6 + RULES["momentum"].hypers.index("momentum")
_FACTOR = 6  # the first hyperparameter of a tool


class _Mover:
    """What moves an optimizer's parameters to the look-ahead point, and the memory that keeps where they were."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.core = _schuss.Core()
        self.values = [np.zeros(_FACTOR + 2) for _ in optimizer.param_groups]
        first = 0
        for group, values in zip(optimizer.param_groups, self.values, strict=True):
            until = first + len(group["params"])
            params = optimizer._params[first:until]
            # The momentum is the first state; a master copy behind it stays where it is.
            states = [
                formats.for_kernels(optimizer._state_format, optimizer._rule_states[i], optimizer._states[i])[:1]
                for i in range(first, until)
            ]
            center, tree = [False] * len(params), [*range(until)]
            self.core._add_group("descend", values, params, states, center, tree, optimizer._state_format.small, False)
            first = until
        self.block = np.empty(_schuss.block_bytes(optimizer), np.uint8)
        _schuss.set_aside(self.core, self.block)


class NAG(Optimizer):
    r"""Nesterov's accelerated gradient, with the gradient taken at the look-ahead point.

    A step is taken with a closure: the parameters move to :math:`p - c b`, the closure returns the gradients there, and
    the parameters move back exactly. Then :math:`b \leftarrow \mu b + g`, or
    :math:`b \leftarrow \mu b + (1 - \mu) g` with ``form="ema"``, and :math:`p \leftarrow p - \eta b`.

    On any smooth function the heavy ball with :math:`c = \eta \mu` visits, at its look-ahead points, the iterates of
    ``SGD(nesterov=True)``, which is PyTorch's form.

    Parameters
    ----------
    momentum : float, default 0.9
        :math:`\mu` in (0, 1).
    form : {"heavy_ball", "ema"}, default "heavy_ball"
        Which momentum.
    lookahead : float, optional
        :math:`c` >= 0; by default :math:`\eta \mu` for the heavy ball and :math:`\eta` for the EMA. Some texts use
        :math:`\mu` alone.
    weight_decay : float, default 0.0
        L2: ``weight_decay * p`` is added to the gradient, with p where the step starts from and not at the look-ahead
        point. There ``SGD(nesterov=True, weight_decay=...)`` takes it, and so does a loss that has the penalty in it:
        for that, leave this at 0 and return ``g + weight_decay * p`` from the closure.

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
    momentum: Fraction = 0.9
    form: Literal["heavy_ball", "ema"] = "heavy_ball"
    lookahead: float | None = None
    weight_decay: float = 0.0

    _single_rule = False
    _on_gpu = False

    def _extend(self, additions: list[tuple[Any, dict[str, Any]]]) -> None:
        super()._extend(additions)
        self._mover: _Mover | None = None
        #: The values of the step under way: a schedule is asked once.
        self._packed: list[list[float]] | None = None

    def step(  # pyright: ignore[reportIncompatibleMethodOverride] - a closure in the place of gradients
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
        FloatingPointError
            A gradient has a NaN or an infinity and ``nonfinite="error"``; nothing has changed then either.
        """
        if not callable(closure):
            raise TypeError("NAG needs a closure: opt.step(lambda: the gradients at the present parameters)")
        with self._exclusive():
            mover = self._mover = self._mover or _Mover(self)
            steps, moves = self.step_count, mover.core.step_count
            try:
                grads = self._gradients_ahead(mover, closure, zero_grads)
                # The step takes the parameters back itself, piece by piece on its way.
                _schuss.set_aside(self, mover.block, restore=True)
                return super().step(grads, grad_scale=grad_scale, zero_grads=zero_grads)
            finally:
                self._packed = None
                _schuss.set_aside(self, None)
                if self.step_count == steps and mover.core.step_count != moves:
                    self._backend.restore(self, mover.block)

    def _gradients_ahead(self, mover: _Mover, closure: Callable[[], Any], zero_grads: bool) -> Any:
        """Moves the parameters, and has the gradients made there."""
        self._packed = self._scheduled_values(self.step_count)
        for values, group, own in zip(mover.values, self.param_groups, self._packed, strict=True):
            values[_FACTOR] = self._coefficient(group, own)
        self._backend.refuse_changed(self)
        mover.core.step()
        grads = closure()
        return grads if _schuss.are_apart(self, grads) else self._kept(grads, zero_grads)

    def _scheduled_values(self, step: int) -> list[list[float]]:
        return self._packed or super()._scheduled_values(step)

    def _kept(self, grads: Any, zero_grads: bool) -> Any:
        """Gradients that stay what they are when the parameters move back: those that share memory are copied."""
        self._explain_structure(grads)
        arrays = [leaf for _, _, leaf in trees.leaves(self._root(), grads, "grads", "params")]
        for i, array in enumerate(arrays):
            # None, too, is judged here: to a step it would mean the optimizer's own gradients.
            if not isinstance(array, np.ndarray) or self._is_written(array):
                arrays[i] = self._gradient(i, array, True, zero_grads)
        return trees.build(self._root(), arrays.__getitem__)

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

    @classmethod
    def _takes_int8(cls, hypers: Mapping[str, Any]) -> bool:
        return True
