"""What a sharded optimizer has of the optimizer itself: hyperparameters, counts, and some methods.

It knows no processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schuss._core.group import ParamGroup
from schuss._core.optimizer import Optimizer

#: Methods of some optimizers that run over all parameters, so that every process has to call them.
_TOGETHER = ("eval", "train", "update_hessian")
#: Methods that change nothing. All others would change the optimizer of one process alone.
_READING = ("metrics",)


class Attributes:
    """Attributes that read and set those of the optimizer."""

    _optimizer: Optimizer

    #: The groups, as of the optimizer; set hyperparameters to the same values in every process.
    param_groups: tuple[ParamGroup, ...]
    #: The learning rate of the next step; set it to the same value in every process.
    lr: Any
    #: Steps skipped because a gradient was not finite.
    skipped_steps: int
    #: The global norm of the last step's sum or mean of gradients, before clipping; None unless it was measured.
    grad_norm: float | None
    #: The bound on the global gradient norm, or None; set it to the same value in every process.
    max_grad_norm: float | None
    #: What a step does about NaN and infinities in the sum of gradients.
    nonfinite: str

    @property
    def step_count(self) -> int:
        """Steps taken; it cannot be set."""
        return self._optimizer.step_count

    def _run_together(self, method: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Calls a method of the optimizer in all processes."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        hidden = name.startswith("_") or name in ("grads", "optimizer")
        value: Any = None if hidden else getattr(self._optimizer, name)
        if name in _TOGETHER:
            return lambda *args, **named: self._run_together(value, args, named)
        if hidden or (callable(value) and name not in _READING):
            hint = {"state_dict": "; use save", "load_state_dict": "; use load", "grads": "; pass gradients to step"}
            hint["optimizer"] = "; use it itself"
            raise AttributeError(f"a sharded optimizer has no {name}{hint.get(name, '')}")
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # What this class does not have is an option of the optimizer, or a mistake that it explains.
        own = name.startswith("_") or hasattr(type(self), name)
        super().__setattr__(name, value) if own else setattr(self._optimizer, name, value)
