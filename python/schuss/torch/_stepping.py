"""A step within the backward pass: hooks update each parameter as soon as its gradient is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from schuss.torch._optimizer import Optimizer


class Stepping:
    """What ``optimizer.stepping()`` returns."""

    def __init__(self, optimizer: Optimizer, grad_scale: float) -> None:
        self._optimizer, self._grad_scale = optimizer, grad_scale
        self._plan = optimizer._planned()
        if self._plan.optimizer is None:
            raise ValueError("stepping needs parameters, and this process has none")
        self._context = self._plan.optimizer.stepping()
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        update = self._context.__enter__()
        try:
            for i, param in enumerate(self._plan._params):
                if param.requires_grad:
                    self._hooks.append(param.register_post_accumulate_grad_hook(self._hook(update, i)))
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _hook(self, update: Any, i: int) -> Any:
        plan, array = self._plan, self._plan.optimizer._params[i]  # type: ignore[union-attr]

        def hook(param: Any) -> None:
            update(array, plan._gradient(i, param), grad_scale=self._grad_scale)
            # What was written through NumPy is unknown to autograd, which must refuse to use the old values.
            torch.autograd.graph.increment_version(plan._parts[i])
            param.grad = None

        return hook

    def __exit__(self, *raised: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._context.__exit__(*raised)
        self._plan.follow(self._optimizer.state)
        # torch's learning-rate schedulers warn if there was no step before theirs.
        self._optimizer._opt_called = True
