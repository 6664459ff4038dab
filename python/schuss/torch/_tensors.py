"""Tensors as NumPy arrays over the same memory, and arrays as tensors. Nothing here knows an optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from schuss._arrays import trees

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_FROZEN = "it requires no gradient: if it is frozen, pass [p for p in model.parameters() if p.requires_grad] instead"
_bfloat16: Any = None


def bfloat16() -> np.dtype[Any]:
    """The bfloat16 dtype of ml_dtypes, which NumPy needs for bfloat16 tensors."""
    global _bfloat16
    if _bfloat16 is None:
        try:
            import ml_dtypes
        except ImportError:
            raise ImportError("bfloat16 tensors need the package ml_dtypes: pip install ml_dtypes") from None
        _bfloat16 = np.dtype(ml_dtypes.bfloat16)
    return _bfloat16


def local(tensor: Any) -> Any:
    """The part of a distributed tensor that this process has; any other tensor is returned as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def is_sharded(tensor: Any) -> bool:
    """Whether other processes have other parts of a distributed tensor."""
    if not hasattr(tensor, "to_local"):
        return False
    sizes = tensor.device_mesh.shape
    split = any(at.is_shard() and size > 1 for at, size in zip(tensor.placements, sizes, strict=True))
    return split or tensor.to_local().shape != tensor.shape


def check(place: str, tensor: Any) -> None:
    """Raises unless a parameter can be updated in place."""
    frozen = "" if tensor.requires_grad else f"; {_FROZEN}"
    tensor = local(tensor)
    if tensor.layout != torch.strided:
        raise TypeError(f"{place} is {tensor.layout}; schuss.torch updates dense tensors only{frozen}")
    if tensor.device.type == "cuda":
        raise ValueError(
            f"{place} is on {tensor.device}, and schuss.torch updates parameters in host memory: move the model with "
            ".cpu(), or give the tensors themselves to the class in schuss, which works on NVIDIA GPUs"
            f"{frozen}"
        )
    if tensor.is_meta:
        raise ValueError(
            f"{place} is on meta, where tensors have no numbers: give the model memory and its first values before the "
            'optimizer is made, as with model.to_empty(device="cpu")'
            f"{frozen}"
        )
    if tensor.device.type != "cpu":
        raise ValueError(
            f"{place} is on {tensor.device}; schuss.torch updates parameters in host memory: use .cpu(){frozen}"
        )
    if tensor.dtype not in _DTYPES:
        advice = "; hold a real parameter and use torch.view_as_complex in forward" if tensor.dtype.is_complex else ""
        raise TypeError(
            f"{place} has dtype {tensor.dtype}; it must be float32, float64, float16 or bfloat16{advice}{frozen}"
        )
    if tensor.is_neg():  # its memory has the opposite numbers
        raise ValueError(f"{place} is a view of negated numbers; use its .resolve_neg() in the model too{frozen}")
    if axes(tensor) is None:
        raise ValueError(
            f"{place} has gaps in memory (shape {tuple(tensor.shape)}, strides {tensor.stride()}); make it dense once "
            f"with .contiguous(), and use that tensor in the model too{frozen}"
        )


def axes(tensor: Any) -> tuple[int, ...] | None:
    """The order of axes in which a dense tensor lies in memory; None if it has gaps.

    The order is the tensor's own wherever NumPy calls it contiguous, in C or Fortran order.
    """
    own = tuple(range(tensor.dim()))
    if tensor.is_contiguous() or tensor.permute(own[::-1]).is_contiguous():
        return own
    order = tuple(sorted(own, key=lambda axis: (-tensor.stride(axis), axis)))
    return order if tensor.permute(order).is_contiguous() else None


def array(tensor: Any) -> np.ndarray:
    """A tensor on the CPU as an array over the same memory."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(bfloat16())
    result: np.ndarray = tensor.resolve_neg().numpy()
    return result


def tensor(array: np.ndarray) -> torch.Tensor:
    """An array as a tensor over the same memory."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def arrays(structure: Any) -> Any:
    """A structure with its tensors as arrays."""
    return _mapped(structure, lambda leaf: array(local(leaf)) if isinstance(leaf, torch.Tensor) else leaf)


def tensors(structure: Any) -> Any:
    """A structure with its arrays as tensors."""
    return _mapped(structure, lambda leaf: tensor(leaf) if isinstance(leaf, np.ndarray) else leaf)


def _mapped(structure: Any, change: Any) -> Any:
    template, leaves = trees.flatten(structure, "the argument")
    return trees.build(template, lambda i: change(leaves[i][1]))
