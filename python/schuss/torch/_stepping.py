"""A step within the backward pass: hooks update each parameter as soon as its gradient is complete."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from schuss.torch._optimizer import Optimizer
    from schuss.torch._plan import Plan


class Stepping:
    """What ``optimizer.stepping()`` returns."""

    def __init__(self, optimizer: Optimizer, grad_scale: float) -> None:
        self._optimizer, self._grad_scale = optimizer, grad_scale
        self._hooks: list[Any] = []
        self._context: Any = None

    def __enter__(self) -> None:
        with self._optimizer._lock:
            self._begin()

    def _begin(self) -> None:
        self._plan = plan = self._optimizer._planned()
        _refuse_local(plan)
        if plan.optimizer is None:
            return  # with sharded parameters a process may have none
        context = plan.optimizer.stepping()
        self._update, self._updated = context.__enter__(), 0
        self._context, self._optimizer._in_step = context, True
        try:
            for i, param in enumerate(plan._params):
                if param.requires_grad:
                    self._hooks.append(param.register_post_accumulate_grad_hook(self._hook(i)))
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise

    def _hook(self, i: int) -> Any:
        def hook(param: Any) -> None:
            if param.grad is None:
                place = self._plan._places[i]
                raise RuntimeError(f"the gradient of {place} is gone: another hook or optimizer has taken it")
            self._take(i, param)

        return hook

    def _take(self, i: int, param: Any) -> None:
        """Updates a parameter with its gradient, and releases that."""
        plan = self._plan
        if not plan._memory.has(i, plan._parts[i]) or not plan._memory.has(i, param):
            raise RuntimeError(f"{plan._places[i]} was given other memory within stepping(); do that between steps")
        array = plan.optimizer._params[i]  # type: ignore[union-attr]
        self._update(array, plan._gradient(i, param), grad_scale=self._grad_scale)
        self._updated += 1
        # What was written through NumPy is unknown to autograd, which must refuse to use the old values.
        torch.autograd.graph.increment_version(plan._parts[i])
        param.grad = None

    def __exit__(self, kind: Any, *raised: object) -> None:
        for hook in self._hooks:
            hook.remove()
        if self._context is None:
            return
        try:
            if kind is None:
                self._finish()
        finally:
            try:
                self._context.__exit__(kind, *raised)
                self._plan.follow(self._optimizer.state)
            finally:
                self._optimizer._in_step = False  # at last: until then it keeps other threads out
            # torch's learning-rate schedulers warn if there was no step before theirs.
            self._optimizer._opt_called = True

    def _finish(self) -> None:
        """Updates the parameters that have a gradient from before the block, as a step after it would."""
        params = self._plan._params
        for i, param in enumerate(params):
            if param.grad is not None:
                self._take(i, param)
        if not self._updated and any(param.requires_grad for param in params):
            raise RuntimeError(
                "stepping() has updated no parameter: no backward pass in its block reached those of this optimizer, "
                "or something else took the gradients, as FullyShardedDataParallel does; use step()"
            )


def _refuse_local(plan: Plan) -> None:
    """Raises if gradients become those of all processes only after the hooks of parameters have run."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    for place, param in zip(plan._places, plan._params, strict=True):
        if param.requires_grad and not hasattr(param, "to_local"):
            raise RuntimeError(
                f"stepping() would update {place} before its gradient is averaged over the "
                f"{distributed.get_world_size()} processes of torch.distributed; use step(), or shard the model with "
                "fully_shard"
            )
