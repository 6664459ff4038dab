"""What a parameter's state in ``optimizer.state`` may be: a user or a checkpoint may have put anything there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from schuss.torch import _tensors
from schuss.torch._groups import as_steps

#: The name in a state of the order of axes in memory, to which the scales of int8 states belong.
ORDER = "memory_order"


def order_of(param: Any, states: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The axes of a parameter as they lie in memory, if it has int8 states; without those of length one."""
    if param.dim() < 2 or not any(f"{name}_scale" in states for name in states):
        return {}
    axes = [axis for axis in range(param.dim()) if param.shape[axis] > 1]
    return {ORDER: torch.tensor(sorted(axes, key=lambda axis: -param.stride(axis)), dtype=torch.int64)}


def check_order(where: str, own: Any, saved: Any) -> None:
    """Raises if a state was saved for other axes; earlier versions do not save them."""
    kept = own if saved is None else numbers(f"{ORDER!r} of {where}", saved)
    if not torch.equal(own, kept.to(own.dtype)):
        raise ValueError(
            f"the state of {where} is for a parameter in another memory order (its axes are in the order "
            f"{kept.tolist()}, here {own.tolist()}), to which its scales belong; give the parameter that order, as "
            "with memory_format=torch.channels_last, or begin without its state"
        )


def taken(state: Any) -> int:
    """The steps that a parameter's state says it has taken; 0 where it says nothing that is one."""
    value = state.get("step", 0) if isinstance(state, Mapping) else 0
    try:
        return as_steps("step", value)
    except (TypeError, ValueError):  # refused by name when the state is used
        return 0


def numbers(where: str, value: Any) -> Any:
    """A state as a tensor of which this process has all."""
    try:
        tensor = _tensors.local(torch.as_tensor(value))
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{where} must be a tensor, got {type(value).__name__}") from None
    if tensor.is_complex() or tensor.layout != torch.strided:
        raise TypeError(f"{where} must be a dense tensor of real numbers, got {tensor.dtype}, {tensor.layout}")
    return tensor.detach()


def copy(where: str, param: Any, target: Any, value: Any) -> None:
    """Copies a state that was saved for the parameter."""
    value = numbers(where, value)
    if value.numel() == target.numel() == 1:
        value = value.reshape(target.shape)
    if value.shape != target.shape:
        raise ValueError(f"{where} has shape {tuple(value.shape)}, but here it has {tuple(target.shape)}")
    # States of torch's own classes have the parameter's dtype; any other of 16 bits or less is a state_dtype.
    unpacked = target.element_size() > 2 and (value.element_size() > 2 or value.dtype == param.dtype)
    if value.dtype != target.dtype and not unpacked:
        raise ValueError(
            f"{where} was saved as {value.dtype}, but here it is {target.dtype}; load it for a parameter of the "
            "same dtype, with the same state_dtype"
        )
    target.copy_(value)
