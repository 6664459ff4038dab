"""The base of the classes in `schuss.torch`: making one, its steps, and states in torch's form."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch.optim import optimizer as torch_optimizer

from schuss._arrays.formats import check_params
from schuss._core.declaration import unknown_option
from schuss._core.group import ParamGroup
from schuss._core.options import Options, state_format
from schuss._core.scheduling import Loading
from schuss.torch import _tensors
from schuss.torch._attributes import Attributes
from schuss.torch._groups import (
    FIRST_RATE,
    hyperparameter,
    is_hyperparameter,
    keep_schedules,
    place,
    places,
    plain,
    refuse_whole,
    schedules,
)
from schuss.torch._lock import Lock, locked
from schuss.torch._names import BESIDES
from schuss.torch._plan import Plan
from schuss.torch._stepping import Stepping

#: How torch should compute a step, which is the package's business here.
_IGNORED = ("foreach", "fused", "capturable", "differentiable")


def _array(param: Any) -> np.ndarray:
    return _tensors.array(_tensors.local(param))


class Optimizer(Attributes):
    """The base of all classes in ``schuss.torch``: a ``torch.optim.Optimizer`` that works like one of the package.

    Options, equations and errors are those of the class of the same name in ``schuss``; ``torch.optim.Optimizer`` says
    what an optimizer of torch does. Differences from torch's own optimizers:

    - States of float16 and bfloat16 parameters are float32, unless ``state_dtype`` says otherwise.
    - ``max_grad_norm``, ``track_grad_norm`` and ``nonfinite`` can be set later, as attributes; ``state_dtype``,
      ``state_rounding``, ``state_seed`` and ``master_weights`` are for the constructor only. None of them is in
      ``state_dict()``.
    - Hyperparameters are set in ``param_groups``: ``lr`` is an attribute to read only.
    - ``lr`` may be a schedule of ``schuss`` too, which is called with the step count.
    - ``foreach``, ``fused`` and ``capturable`` are accepted and have no effect.
    - Gradients must be dense. A step is not differentiable.

    What the class of the package has besides, such as ``eval()`` of the schedule-free ones, is there too, with tensors
    in the place of arrays.

    Parameters
    ----------
    params : iterable of tensors, of (name, tensor) pairs, or of dicts
        Parameters on the CPU, float32, float64, float16 or bfloat16, dense in memory; or groups of them, each a dict
        with ``"params"`` and the hyperparameters in which it differs.
    *args, **options
        Those of the class in ``schuss``.

    Raises
    ------
    TypeError, ValueError
        A parameter or an option cannot be used; the message names it.

    Examples
    --------
    >>> import torch, schuss.torch
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = schuss.torch.AdamW(model.parameters(), lr=1e-3)
    >>> model(torch.ones(3, 2)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state_dict()["state"][0])
    ['exp_avg', 'exp_avg_sq', 'step']
    """

    #: For messages of functions that take optimizers.
    _refusal = (
        " of schuss.torch, not of schuss itself; save it with torch.save(optimizer.state_dict(), path), and average "
        "with schuss.torch.swa_utils"
    )
    _made_with: ClassVar[inspect.Signature]
    _plan: Plan | None = None
    #: Defaults of groups that torch shall not know: schedulers cycle ``betas`` if there are any, else ``momentum``.
    _beside: dict[str, Any]
    #: Whether the constructor is adding its groups.
    _in_constructor = False
    #: Whether a block of `stepping` has begun.
    _in_step = False

    def _check_idle(self) -> None:
        if self._in_step:
            raise RuntimeError("within stepping() only backward passes may use this optimizer")

    def __init__(self, params: Any, *args: Any, **options: Any) -> None:
        if not hasattr(type(self), "_kind"):
            raise TypeError("Optimizer is what all classes of schuss.torch have in common; make one of those")
        if options.get("differentiable"):
            raise ValueError("differentiable=True: a step of schuss.torch cannot be differentiated; use torch.optim")
        self._lock = Lock()
        given = {name: value for name, value in options.items() if name not in _IGNORED}
        known = list(self._made_with.parameters)[1:]
        unknown = [name for name in given if name not in known and name != "params"]
        if unknown:
            raise unknown_option(type(self).__name__, unknown[0], known)
        try:
            bound = self._made_with.bind(params, *args, **given)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None
        bound.apply_defaults()
        values = {name: value for name, value in bound.arguments.items() if name != "params"}
        whole = [name for name, field in Options._parameters.items() if field.whole and name in values]
        self._options = {name: self._kind._parameters[name].check(name, plain(name, values[name])) for name in whole}
        values = {name: value for name, value in values.items() if name not in self._options}
        self._beside = {name: values.pop(name) for name in ("betas",) if "momentum" in values and name in values}
        self._in_constructor = True
        super().__init__(params, values)
        self._in_constructor = False
        named = [(where, _array(param)) for where, param in places(self.param_groups)]
        check_params(state_format(self._options), named)
        Plan(self._kind, self._options, self.param_groups, {})  # raises what the first step would; it is not kept

    @locked
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters; see ``torch.optim.Optimizer.add_param_group``."""
        self._check_idle()
        if isinstance(param_group, dict):  # else torch has an error for it
            for name, default in self._beside.items():
                param_group.setdefault(name, default)  # as torch does with its defaults
        super().add_param_group(param_group)
        try:
            self._check_group(len(self.param_groups) - 1)
            if not self._in_constructor:  # with the first alone, since many groups may be added one by one
                numbers = sorted({0, len(self.param_groups) - 1})
                Plan(self._kind, self._options, [self.param_groups[g] for g in numbers], {}, None, numbers)
        except BaseException:
            del self.param_groups[-1]
            raise

    def _check_group(self, g: int) -> None:
        group = self.param_groups[g]
        # A group may have no parameter with a master copy.
        kept = state_format(self._options)._replace(master=False)
        refuse_whole(self.param_groups)
        for i, param in enumerate(group["params"]):
            where = place(g, i, group)
            _tensors.check(where, param)
            check_params(kept, [(where, _array(param))])
        where = f"param_groups[{g}]: " if g else ""
        names = [name for name in (*self.defaults, *self._beside) if is_hyperparameter(self._kind, name)]
        hypers = {name: hyperparameter(where + name, group, name) for name in names}
        # Earlier versions saved the first rate as ``initial_lr``, which torch's schedulers set too.
        first = group.get(FIRST_RATE, group.get("initial_lr"))
        checked = ParamGroup(self._kind, [], hypers, where, None if first is None else plain(FIRST_RATE, first))
        # An option of torch's Adam, with which it is AdamW.
        if group.get("decoupled_weight_decay") and hypers.get("weight_decay") and self._kind._decay(hypers) == "l2":
            raise ValueError(
                f"{where}decoupled_weight_decay is True, but {type(self).__name__} adds weight decay to the gradient; "
                "use a class that decouples it, such as AdamW"
            )
        if self._kind._by_first_rate(hypers) is not None:
            group.setdefault(FIRST_RATE, checked.initial_lr)

    def _planned(self) -> Plan:
        """The optimizer of the package with everything that a step needs, made anew if it no longer fits.

        The caller holds the lock.
        """
        self._check_idle()
        plan = self._plan
        if plan is not None:
            plan.follow(self.state)  # an exception may have come between a step and this
        if plan is None or plan.unused or not plan.fits(self.param_groups, self.state):
            if plan is not None:
                plan.keep_count(self.param_groups, self.state)
            plan = Plan(self._kind, self._options, self.param_groups, self.state, plan)
            plan.follow(self.state)
            self._plan = plan
        if plan.optimizer is not None:
            plan.adopt_options()
        return plan

    def step(self, closure: Callable[[], Any] | None = None, **options: Any) -> Any:
        """Takes one step.

        Parameters
        ----------
        closure : callable, optional
            Computes the gradients anew and returns the loss. NAG needs it, and calls it at its look-ahead point.
        **options
            Further arguments of the ``step`` of the class in ``schuss``, such as ``grad_scale``, which may be a
            tensor of one element.

        Returns
        -------
        object
            What the closure returned, or None.
        """
        # What torch puts around each step, for hooks and its profiler, takes longer than the step of a small model.
        if torch.autograd._profiler_enabled() or torch.compiler.is_compiling() or any(self._step_hooks()):
            return self._watched_step(*[closure] * (closure is not None), **options)
        return self._step(closure, **options)

    step.hooked = True  # type: ignore[attr-defined]

    def _step_hooks(self) -> tuple[Any, ...]:
        own = self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks
        return *own, torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks

    def _step(self, closure: Callable[[], Any] | None = None, **options: Any) -> Any:
        if self._takes_closure:
            return self._step_with(closure, options)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with self._lock:
            plan = self._planned()
            gradients, parts = plan.gradients()
            if plan.optimizer is not None and parts:
                plan.optimizer.step(gradients, **(plan.arguments("step", options) if options else options))
                plan.follow(self.state)
                # What was written through NumPy is unknown to autograd, which must refuse a stale backward pass.
                torch.autograd.graph.increment_version(parts)
        return loss

    def stepping(self, *, grad_scale: float | torch.Tensor = 1.0) -> Stepping:
        """Takes a step within the backward pass: each parameter is updated as soon as its gradient is complete.

        The gradient, which ``param.grad`` then no longer holds, is still in the cache, and all of them are never in
        memory together. Results have the bits of :meth:`step` after the backward pass. See `schuss.Optimizer.stepping`
        for what this excludes, such as clipping by the global norm. In a block, one backward pass, and no other use of
        the optimizer. Step hooks do not run. torch's ``GradScaler`` expects ``step()``: divide with ``grad_scale``.
        Parameters that have a gradient from an earlier backward pass are updated at the end of the block.

        With more than one process, parameters must be the distributed tensors of ``fully_shard``: DDP and
        ``FullyShardedDataParallel`` average gradients only after this has used them.

        Parameters
        ----------
        grad_scale : float or tensor of one element, default 1.0
            What gradients are divided by first.

        Returns
        -------
        context manager

        Raises
        ------
        RuntimeError
            When the block begins: ``torch.distributed`` has more than one process, and a parameter is no distributed
            tensor. When it ends: no parameter was updated, though some require gradients.

        Examples
        --------
        >>> import torch, schuss.torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = schuss.torch.AdamW(model.parameters(), lr=1e-3)
        >>> loss = model(torch.ones(3, 2)).sum()
        >>> with optimizer.stepping():
        ...     loss.backward()
        >>> model.weight.grad is None
        True
        """
        return Stepping(self, plain("grad_scale", grad_scale))

    # torch.compiler.disable would import the compiler at once.
    _watched_step = torch.optim.Optimizer.profile_hook_step(torch._disable_dynamo(_step))
    _takes_closure: ClassVar[bool] = False
    #: Whether its closure returns the loss too, before the gradients; its step then returns the first loss.
    _takes_loss: ClassVar[bool] = False

    @locked
    def _step_with(self, closure: Callable[[], Any] | None, options: dict[str, Any]) -> Any:
        if closure is None:
            raise TypeError(
                f"{type(self).__name__} needs a closure that computes the gradients: optimizer.step(closure)"
            )
        plan, losses = self._planned(), []

        def gradients() -> Any:
            with torch.enable_grad():
                losses.append(closure())
            found = plan.gradients(zeros=self._takes_loss)[0]  # LBFGS sees all parameters as one vector
            return (plain("the loss", losses[-1]), found) if self._takes_loss else found

        if plan.optimizer is not None:
            plan.optimizer.step(gradients, **plan.arguments("step", options))
            plan.follow(self.state)
            torch.autograd.graph.increment_version(plan._parts)
        return losses[0] if losses else None

    @locked
    def state_dict(self) -> dict[str, Any]:
        """The state in torch's form; that of a class that torch has too, but LBFGS and Muon, loads into torch's."""
        self._check_idle()
        if self._plan is not None:
            self._plan.keep_count(self.param_groups, self.state)
        if self._kind.__name__ not in BESIDES:
            return super().state_dict()
        # Hooks of a user see the whole, and may return something else.
        handle = self.register_state_dict_post_hook(_add_besides, prepend=True)
        try:
            return super().state_dict()
        finally:
            handle.remove()

    @locked
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the result of :meth:`state_dict`, or of torch's class of the same name, but LBFGS and Muon.

        Values are copied. Schedules of this optimizer stay, and those with state have it restored. On an error nothing
        has changed.

        Raises
        ------
        ValueError
            It is of another class, structure or state format, or a shape does not fit.
        """
        self._check_idle()
        before = self.__dict__.copy()
        own: list[dict[str, Any]] = []
        loaded, loading = state_dict, Loading()

        def last(_: Any, final: dict[str, Any]) -> None:
            nonlocal loaded, own
            loaded, own = final, [schedules(self._kind, group) for group in self.param_groups]

        def mend(_: Any) -> None:
            """Sets states as they were saved, which torch has cast to parameters' dtypes, and this one's schedules."""
            nonlocal loading
            loading = keep_schedules(self._kind, self.param_groups, own)
            saved = (i for group in loaded["param_groups"] for i in group["params"])
            params = (param for group in self.param_groups for param in group["params"])
            for i, param in zip(saved, params, strict=True):
                if i in loaded["state"]:
                    self.state[param] = copy.copy(loaded["state"][i])

        # After a user's hooks before loading, and before those after it.
        handles = [
            self.register_load_state_dict_pre_hook(last),
            self.register_load_state_dict_post_hook(mend, prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
            for g in range(len(self.param_groups)):
                self._check_group(g)
            self._planned()
            loading.make()
        except BaseException:
            self.__dict__.update(before)
            raise
        finally:
            for handle in handles:
                handle.remove()

    @locked
    def __getstate__(self) -> dict[str, Any]:
        self._check_idle()
        if self._plan is not None:
            self._plan.keep_count(self.param_groups, self.state)
        return {**super().__getstate__(), "_options": self._options, "_beside": self._beside}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_lock", Lock())  # torch calls this on an optimizer that loads, too
        self._plan = None
        if "_beside" not in self.__dict__:  # earlier versions had them among the defaults
            names = [name for name in ("betas",) if name in self.defaults and "momentum" in self.defaults]
            self._beside = {name: self.defaults.pop(name) for name in names}
        for group in self.param_groups:  # torch's classes have other options
            for name, default in (self.defaults | self._beside).items():
                group.setdefault(name, default)


def _add_besides(optimizer: Any, result: dict[str, Any]) -> None:
    """Adds what torch's class saves besides to a result of `state_dict`."""
    besides = BESIDES[optimizer._kind.__name__]
    for group in result["param_groups"]:
        for i in set(group["params"]) & set(result["state"]):
            own = result["state"][i]
            if "step" in own:
                more = besides(group, float(own["step"]))
                result["state"][i] = {**own, **{name: torch.tensor(value) for name, value in more.items()}}
