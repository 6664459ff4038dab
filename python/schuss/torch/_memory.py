"""Where tensors lie in memory, to see when one was given other memory, or other axes over it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

from schuss.torch import _tensors

_pointer, _strides = torch.Tensor.data_ptr, torch.Tensor.stride
_shape, _dtype = operator.attrgetter("shape"), operator.attrgetter("dtype")


class Memory:
    """The memory of some tensors as it was when this was made."""

    def __init__(self, tensors: Sequence[Any]) -> None:
        self._tensors = tensors
        self._plain = not any(hasattr(tensor, "to_local") for tensor in tensors)
        now = self._local()
        self._pointers, self._own_strides = list(map(_pointer, now)), list(map(_strides, now))
        self._shapes, self._dtypes = list(map(_shape, now)), list(map(_dtype, now))

    def _local(self) -> Sequence[Any]:
        return self._tensors if self._plain else [_tensors.local(tensor) for tensor in self._tensors]

    def moved(self) -> bool:
        """Whether a tensor has other memory now."""
        return list(map(_pointer, self._local())) != self._pointers

    def changed(self) -> bool:
        """Whether a tensor has other memory, strides, shape or dtype now."""
        now = self._local()
        return (
            list(map(_pointer, now)) != self._pointers
            or list(map(_strides, now)) != self._own_strides
            or list(map(_shape, now)) != self._shapes
            or list(map(_dtype, now)) != self._dtypes
        )

    def has(self, i: int, tensor: Any) -> bool:
        """Whether a tensor lies where that number `i` did, with the same axes."""
        tensor = _tensors.local(tensor)
        now = tensor.data_ptr(), tensor.stride(), tensor.shape, tensor.dtype
        return now == (self._pointers[i], self._own_strides[i], self._shapes[i], self._dtypes[i])
