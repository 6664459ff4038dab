"""What a torch optimizer has of the package's: options, counts and methods, with tensors in the place of arrays.

It takes no steps, and knows no states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch

from schuss._core.optimizer import Optimizer
from schuss._core.options import Options
from schuss.torch._groups import plain

if TYPE_CHECKING:
    from schuss.torch._lock import Lock
    from schuss.torch._plan import Plan

T = TypeVar("T")


class Attributes(torch.optim.Optimizer):
    """The base of `schuss.torch.Optimizer` that reads and sets the attributes of the optimizer in its plan."""

    #: The class of the package.
    _kind: ClassVar[type[Optimizer]]
    #: The values of those that hold for all groups.
    _options: dict[str, Any]
    _lock: Lock

    def _planned(self) -> Plan:
        """The plan of the next step."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        kind = self._kind
        public = not name.startswith("_") and (hasattr(kind, name) or name in kind._parameters)
        if not public or hasattr(type(self), name) or name == "param_groups":  # torch's, or a user's own
            return super().__setattr__(name, value)
        field = kind._parameters.get(name)
        if field is not None and not field.whole:
            raise AttributeError(f"{name} is a hyperparameter; set it in optimizer.param_groups[i][{name!r}]")
        if getattr(getattr(kind, name, None), "fset", None) is None:
            advice = "give your own attribute another name" if field is None else "give it to the constructor"
            raise AttributeError(f"{name} of {type(self).__name__} cannot be set; {advice}")
        with self._lock:
            value, plan, options = plain(name, value), self._planned(), self._options
            if field is not None:
                options = {**options, name: field.check(name, value)}
                plan.check_limits(options)
            if plan.optimizer is None:
                self._options = options
            else:
                self._kept_after(plan, lambda: plan.set(name, value, self.state))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(self._kind, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def find() -> tuple[Plan, Any]:
            plan = self._planned()
            if plan.optimizer is None:
                raise ValueError(f"{name} needs parameters, and this process has none")
            return plan, getattr(plan.optimizer, name)

        with self._lock:
            found = find()[1]
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                plan, method = find()  # anew: there may have been steps and loads since
                assert plan.optimizer is not None
                before = plan.optimizer._changes
                given, named = plan.arguments(name, args), plan.arguments(name, kwargs)
                result = self._kept_after(plan, lambda: method(*given, **named))
                if plan.optimizer._changes != before and name not in ("train", "eval"):  # modes are kept in the groups
                    plan.unused = False
                torch.autograd.graph.increment_version(plan._parts)
                return plan.result(result)

        return call

    def _kept_after(self, plan: Plan, call: Callable[[], T]) -> T:
        """The result of a call; what it changes of the settings is kept for checkpoints and for the next plan."""
        before = plan.settings()
        try:
            result = call()
            self._keep_settings(before, plan.settings())
        except BaseException:  # an interrupt may have come after the change, and before all of it was kept
            self._keep_settings(before, plan.settings())
            raise
        return result

    def _keep_settings(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        changed = {name: value for name, value in now.items() if value != before[name]}
        options = {name: changed.pop(name) for name in list(changed) if name in Options._parameters}
        self._options = {**self._options, **options}
        for group in self.param_groups:
            group.update(changed)
