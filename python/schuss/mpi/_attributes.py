"""What a sharded optimizer has of the optimizer itself: hyperparameters and counts. It knows no processes."""

from __future__ import annotations

from typing import Any

from schuss._core.group import ParamGroup
from schuss._core.optimizer import Optimizer


class Attributes:
    """Properties that read and set those of the optimizer."""

    _optimizer: Optimizer

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The groups, as of the optimizer; set hyperparameters to the same values in every process."""
        return self._optimizer.param_groups

    @property
    def lr(self) -> float:
        """The learning rate of the next step; set it to the same value in every process."""
        optimizer: Any = self._optimizer
        rate: float = optimizer.lr
        return rate

    @lr.setter
    def lr(self, value: Any) -> None:
        self._optimizer.lr = value

    @property
    def step_count(self) -> int:
        """Steps taken."""
        return self._optimizer.step_count

    @property
    def skipped_steps(self) -> int:
        """Steps skipped because a gradient was not finite."""
        return self._optimizer.skipped_steps

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the last step's sum or mean of gradients, before clipping; None unless it was measured."""
        return self._optimizer.grad_norm

    @property
    def max_grad_norm(self) -> float | None:
        """The bound on the global gradient norm, or None; set it to the same value in every process."""
        return self._optimizer.max_grad_norm

    @max_grad_norm.setter
    def max_grad_norm(self, value: float | None) -> None:
        self._optimizer.max_grad_norm = value

    @property
    def nonfinite(self) -> str:
        """What a step does about NaN and infinities in the sum of gradients."""
        return self._optimizer.nonfinite

    @nonfinite.setter
    def nonfinite(self, value: Any) -> None:
        self._optimizer.nonfinite = value
