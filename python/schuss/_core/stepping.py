"""A step that is taken array by array, as a backward pass computes gradients. No rule or subclass is known here."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from schuss import _schuss
from schuss._arrays import formats
from schuss._backends.host import HOST
from schuss._backends.protocol import GroupArrays
from schuss._core import validate
from schuss._core.rules import RULES

if TYPE_CHECKING:
    from schuss._core.optimizer import Optimizer


class _SingleArray(_schuss.Core):
    """One array of an optimizer with its states, as an optimizer of its own; its owner answers what Rust asks."""

    #: It has no gradient buffers.
    _grads: None = None

    def __init__(self, owner: Optimizer, i: int, group: GroupArrays, at: int) -> None:
        self._owner, self._i = weakref.ref(owner), i
        self._variant = group.rule_of[at]
        kept = owner._state_format
        states = formats.for_kernels(kept, group.rule_states[at], group.states[at], group.scratch[at])
        own = ([group.rules[self._variant]], [0], [group.params[at]], [states], [group.matrices[at]])
        self._arrangement = _schuss.Arrangement([own], 0, kept.small, kept.master, None, [])

    def _optimizer(self) -> Optimizer:
        owner = self._owner()
        if owner is None:
            raise RuntimeError("the optimizer of this array no longer exists")
        return owner

    def _scheduled_values(self, step: int) -> list[list[float]]:
        owner = self._optimizer()
        group, _ = owner._suffixes[self._i]
        return [owner._groups[group].packed_at(step)[self._variant]]

    def _gradient(self, _: int, gradient: Any, shared: bool, zero_grads: bool) -> np.ndarray:
        return self._optimizer()._gradient(self._i, gradient, shared, zero_grads)

    def _look_again(self) -> list[Any]:
        return []

    def _explain_changed(self, _: int) -> None:
        self._optimizer()._explain_changed(self._i)

    def _explain_nonfinite(self, _: int, at: int) -> None:
        self._optimizer()._explain_nonfinite(self._i, at, "this array was not updated")


#: The optimizers of single arrays, with the lists of parameters and states that they were made for.
Kept = tuple[tuple[list[np.ndarray], list[list[np.ndarray]]], list[_SingleArray]]


class Stepping:
    """What ``opt.stepping()`` returns."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._context: Any = None

    def __enter__(self) -> Callable[..., None]:
        optimizer = self._optimizer
        if self._context is not None:
            raise RuntimeError("this step has begun already; call opt.stepping() for each step")
        _refuse(optimizer)
        optimizer._backend.refuse_changed(optimizer)
        optimizer._backend.refuse_replaced(optimizer)
        arrays = _arrays(optimizer)
        self._numbers = {id(param): i for i, param in enumerate(optimizer._params)}
        self._context = _schuss.Stepping(optimizer, arrays)
        try:
            _refuse(optimizer)  # again, now that no other thread can set an option
        except BaseException:
            self.__exit__()
            raise
        return self._update

    def __exit__(self, *raised: object) -> None:
        if self._context is None:
            raise RuntimeError("this step has not begun; use it in a with statement")
        self._context.__exit__(*raised)

    def _update(self, param: np.ndarray, gradient: Any, *, grad_scale: float = 1.0) -> None:
        """Updates one parameter in place.

        Parameters
        ----------
        param : array
            A parameter of the optimizer: the array itself.
        gradient : array of the same shape
            Of any floating-point dtype, strides and byte order.
        grad_scale : float, default 1.0
            What it is divided by first, finite and > 0.
        """
        optimizer = self._optimizer
        i = self._numbers.get(id(param))
        if i is None or optimizer._params[i] is not param:
            what = f"an array of shape {param.shape}" if isinstance(param, np.ndarray) else f"a {type(param).__name__}"
            raise ValueError(f"{what} that is none of this optimizer's parameters; pass the array that it was given")
        if gradient is None:
            place = optimizer._place("params", *optimizer._suffixes[i])
            raise TypeError(f"the gradient of {place} is None; leave the call out, and the step leaves the array alone")
        if not self._context.update(i, gradient, validate.grad_scale(grad_scale)):
            place = optimizer._place("params", *optimizer._suffixes[i])
            raise ValueError(
                f"{place} was updated in this step already; a step takes one gradient of an array, the sum"
            )


def _refuse(optimizer: Optimizer) -> None:
    """Raises unless this optimizer can update one array without the others."""
    if optimizer._stepped is not optimizer:
        name = type(optimizer).__name__
        raise TypeError(f"{name} cannot step array by array: what it does with a step is for all arrays together")
    name = optimizer._name()
    if not optimizer._takes_gradients:
        raise TypeError(f"{name} cannot step array by array: its step takes more than gradients")
    if any(RULES[rule].joint for group in optimizer._groups for rule in group.rules):
        raise TypeError(f"{name} cannot step array by array: each array's update depends on all others")
    if hasattr(optimizer, "_matrix_work"):
        raise TypeError(f"{name} cannot step array by array: its step needs matrix products between its passes")
    if optimizer._backend is not HOST:
        raise TypeError("steps array by array work on NumPy arrays of this process only")
    for option, off in (("max_grad_norm", None), ("track_grad_norm", False)):
        if getattr(optimizer, option) is not off:
            raise ValueError(
                f"{option} needs the norm of all gradients, which are never there together in a step array by array; "
                f"use {option}={off}"
            )
    if optimizer.nonfinite == "skip":
        raise ValueError(
            'nonfinite="skip" cannot take back the arrays that were updated before; use nonfinite="error", which '
            "raises at the first array with a NaN or an infinity"
        )


def _arrays(optimizer: Optimizer) -> list[_SingleArray]:
    """The optimizers of single arrays, kept until the optimizer gets other arrays."""
    given = (optimizer._params, optimizer._states)
    kept = optimizer._by_array
    if kept is None or any(before is not now for before, now in zip(kept[0], given, strict=True)):
        groups = optimizer._group_arrays(
            optimizer._groups, optimizer._states, optimizer._step_scratch, optimizer._rule_states
        )
        at = [(group, k) for group in groups for k in range(len(group.params))]
        kept = given, [_SingleArray(optimizer, i, group, k) for i, (group, k) in enumerate(at)]
        optimizer._by_array = kept
    return kept[1]
