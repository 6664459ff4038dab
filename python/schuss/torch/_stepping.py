"""A step within the backward pass: hooks update each parameter as soon as its gradient is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from schuss.torch import _tensors

if TYPE_CHECKING:
    from schuss.torch._optimizer import Optimizer


class Stepping:
    """What ``optimizer.stepping()`` returns."""

    def __init__(self, optimizer: Optimizer, grad_scale: float) -> None:
        self._optimizer, self._grad_scale = optimizer, grad_scale
        self._hooks: list[Any] = []
        self._context: Any = None

    def __enter__(self) -> None:
        self._plan = plan = self._optimizer._planned()
        if plan.optimizer is None:
            return  # with sharded parameters a process may have none
        context = plan.optimizer.stepping()
        update = context.__enter__()
        self._context, self._optimizer._in_step = context, True
        try:
            for i, param in enumerate(plan._params):
                if param.requires_grad:
                    self._hooks.append(param.register_post_accumulate_grad_hook(self._hook(update, i)))
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _hook(self, update: Any, i: int) -> Any:
        plan, array = self._plan, self._plan.optimizer._params[i]  # type: ignore[union-attr]

        def hook(param: Any) -> None:
            place = plan._places[i]
            if param.grad is None:
                raise RuntimeError(f"the gradient of {place} is gone: another hook or optimizer has taken it")
            if plan._parts[i].data_ptr() != plan._pointers[i] or _tensors.local(param).data_ptr() != plan._pointers[i]:
                raise RuntimeError(f"{place} was given other memory within stepping(); do that between steps")
            update(array, plan._gradient(i, param), grad_scale=self._grad_scale)
            # What was written through NumPy is unknown to autograd, which must refuse to use the old values.
            torch.autograd.graph.increment_version(plan._parts[i])
            param.grad = None

        return hook

    def __exit__(self, *raised: object) -> None:
        for hook in self._hooks:
            hook.remove()
        if self._context is not None:
            self._optimizer._in_step = False
            self._context.__exit__(*raised)
            self._plan.follow(self._optimizer.state)
            # torch's learning-rate schedulers warn if there was no step before theirs.
            self._optimizer._opt_called = True
