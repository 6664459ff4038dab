"""The gradients of a step on a GPU: collected from their structure, and checked against the parameters.

It starts no work on the GPU.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any

from schuss import _schuss
from schuss._arrays import checks, trees
from schuss._backends import cuda_arrays, cuda_interop
from schuss._backends.cuda_arrays import DeviceArray
from schuss._backends.cuda_interop import Description
from schuss._backends.protocol import Change, Owner


class Gradients:
    """The gradients of one optimizer's last step; those that are the same in the next are not checked again."""

    def __init__(self) -> None:
        #: The structure of gradients, with its leaves in the order of their numbers.
        self._template: Any = None
        #: For each parameter the key of its last gradient and its description; None before the first step.
        self._known: list[Any] = []
        #: Those of the step that is being started which must outlive it, and those of earlier steps, each with the
        #: event of its end. PyTorch and CuPy reuse freed memory in stream order, other libraries may do it earlier.
        self._alive: list[Any] = []
        self._queued: list[tuple[_schuss.CudaEvent, list[Any]]] = []

    def arranged(self, root: Any, new: int) -> list[Change]:
        """What changes when there are `new` more parameters, and this is the structure of all."""
        return [(self, "_template", trees.in_order(root)), (self, "_known", [None] * (len(self._known) + new))]

    def read(self, owner: Owner, device: int, grads: Any, zero_grads: bool, partial: bool) -> list[Description | None]:
        """The checked gradients; None where there is none."""
        leaves: list[Any] = []
        if not _collect(self._template, grads, partial, leaves):
            owner._explain_structure(grads, partial)
        for i, leaf in enumerate(leaves):
            key = _key(leaf)
            if leaf is None:
                self._known[i] = (None, None)
            elif self._known[i] is None or key is None or self._known[i][0] != key:
                self._known[i] = (key, _checked(owner, device, i, leaf))
        described = [entry[1] for entry in self._known]
        if zero_grads:
            _check_zeroable(owner, described)
        self._alive = [
            leaf for leaf, one in zip(leaves, described, strict=True) if one is not None and not one.framework
        ]
        return described

    def started(self, device: int, stream: int) -> None:
        """Keeps gradients alive until this stream has run the work that it has been given."""
        self._queued = [(end, leaves) for end, leaves in self._queued if not end.reached()]
        if self._alive:
            end = _schuss.CudaEvent(device)
            end.record(stream)
            self._queued.append((end, self._alive))
            self._alive = []


def as_given(gradients: Sequence[Description | None]) -> tuple[list[int], list[str]]:
    """The pointer and type of each gradient, as the extension module takes them."""
    pointers = [0 if gradient is None else gradient.pointer for gradient in gradients]
    return pointers, ["" if gradient is None else gradient.dtype for gradient in gradients]


def _checked(owner: Owner, device: int, i: int, gradient: Any) -> Description:
    """A gradient, checked against its parameter."""
    place = owner._place(owner._arguments, *owner._suffixes[i])
    param_place = owner._place("params", *owner._suffixes[i])
    param = owner._params[i]
    if not checks.is_on_gpu(gradient):
        raise TypeError(
            f"{place} is {trees.kind(gradient)} in host memory, but {param_place} is on a GPU; move it there first"
        )
    described = cuda_interop.describe(place, gradient)
    if described.dtype not in cuda_interop.DTYPES:
        raise TypeError(
            f"{place} has dtype {described.dtype}; a gradient must be float32, float64, float16 or bfloat16"
        )
    if described.shape != param.shape:
        raise ValueError(f"{place} has shape {described.shape}, but {param_place} has shape {param.shape}")
    own = _schuss.cuda_device_of(described.pointer) if param.size else device
    if own != device:
        raise ValueError(f"{place} is on device {own}, but {param_place} is on device {device}")
    same = described.order == param.order or param.ndim < 2 or _orders_agree(param.shape)
    if described.order is None or not same:
        raise ValueError(
            f"{place} does not lie in memory as {param_place} does, contiguous in {param.order} order; copy it so"
        )
    view = DeviceArray(
        described.pointer, described.shape, cuda_arrays.dtype_of(described.dtype), param.order, device, None, ""
    )
    if described.pointer % view.itemsize:
        raise ValueError(f"{place} is not aligned to its {view.itemsize}-byte elements")
    if owner._is_written(view):
        raise ValueError(f"{place} shares memory with a parameter or a state; pass a copy")
    return described


def _check_zeroable(owner: Owner, described: Sequence[Description | None]) -> None:
    """Raises if a gradient cannot be set to zero, or two share memory."""
    ranges = []
    for i, (one, param) in enumerate(zip(described, owner._params, strict=True)):
        if one is None:
            continue
        if not one.writable:
            raise ValueError(
                f"{owner._place('grads', *owner._suffixes[i])} is read-only, so it cannot be zeroed; pass a copy"
            )
        if param.size:
            size = param.size * cuda_arrays.dtype_of(one.dtype).itemsize
            ranges.append((one.pointer, one.pointer + size, i))
    ranges.sort()
    for (_, end, i), (start, _, k) in itertools.pairwise(ranges):
        if end > start:
            owner._explain_shared(i, k)


def _orders_agree(shape: tuple[int, ...]) -> bool:
    """Whether C and Fortran order are the same for this shape."""
    return sum(n != 1 for n in shape) < 2 or 0 in shape


def _key(leaf: Any) -> Any:
    """A cache key: a gradient with an unchanged key need not be checked again; None if a check is as cheap."""
    if type(leaf).__module__ == "torch" and leaf.layout is sys.modules["torch"].strided:  # a sparse one has no pointer
        return leaf.data_ptr(), leaf.dtype, leaf.shape, leaf.stride()
    if isinstance(leaf, DeviceArray):
        return leaf.pointer, leaf.dtype, leaf.shape, leaf.order
    return None


def _collect(template: Any, structure: Any, partial: bool, leaves: list[Any]) -> bool:
    """Collects the leaves of a structure in the template's order; false if it does not match."""
    if structure is None:
        leaves += [None] * len(trees.flatten(template, "")[1])
    elif isinstance(template, dict):
        if not isinstance(structure, dict) or any(key not in template for key in structure):
            return False
        if not partial and len(structure) != len(template):
            return False
        return all(_collect(value, structure.get(key), partial, leaves) for key, value in template.items())
    elif isinstance(template, (list, tuple)):
        if not isinstance(structure, (list, tuple)) or len(structure) != len(template):
            return False
        return all(_collect(one, own, partial, leaves) for one, own in zip(template, structure, strict=True))
    elif template is None:
        return False
    else:
        leaves.append(structure)
    return True
