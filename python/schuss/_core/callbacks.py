"""Callbacks that the extension module makes during a step: convert or copy a gradient, raise a detailed error.

On the fast path, when all gradients fit as they are, only the schedules are called. No rule or subclass is known here.
"""

from __future__ import annotations

import numbers
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, trees
from schuss._backends.protocol import Owner
from schuss._core import validate
from schuss._core.group import ParamGroup


class Callbacks(Owner):
    """The base of `Optimizer` that implements these callbacks."""

    _groups: list[ParamGroup]
    #: The optimizer's own gradient buffers; None until `grads` is first read.
    _grads: Any
    #: The structures that the groups' parameters were given in.
    _given_in: list[Any]
    #: The wrappers around the optimizer.
    _wrapped_by: list[weakref.ref[Any]]
    #: What a wrapper has set the parameters to last, and what ends that, for messages.
    _shown_now: tuple[str, str]
    #: The memory that a step writes, as sorted byte ranges; computed when first needed.
    _written: list[tuple[int, int]] | None

    def _own_grads(self) -> Any:
        if self._grads is None:
            raise ValueError("step() without gradients uses opt.grads, which nothing has been put into; pass gradients")
        return self._grads

    def _gradient(self, i: int, gradient: Any, shared: bool, zero_grads: bool) -> np.ndarray:
        # The memory may be that of a wrapper that is gone.
        shared = shared and not (isinstance(gradient, np.ndarray) and not self._is_written(gradient))
        place, param_place = self._place(self._arguments, *self._suffixes[i]), self._place("params", *self._suffixes[i])
        self._refuse_loss(place, gradient)
        if _may_be_rows(gradient):
            raise TypeError(f"{place} is a pair; pass indices and values of rows to step_rows, and whole arrays here")
        usable = checks.as_gradient(place, gradient, param_place, self._params[i], copy=shared)
        # The extension module checks for shared memory only where the gradient can be used unconverted.
        if not shared and self._is_written(usable):
            usable = usable.copy(checks.order(usable))
        if zero_grads:
            checks.check_zeroable(place, gradient)
            if shared or self._is_written(gradient):
                raise ValueError(
                    f"{place} shares memory with a parameter or a state, so zero_grads=True cannot zero it; pass a copy"
                )
        return usable

    @staticmethod
    def _refuse_loss(place: str, grads: Any) -> None:
        """Raises if this is a pair of a loss and gradients. Call it once the structure has been found not to fit."""
        if isinstance(grads, tuple) and len(grads) == 2 and _is_number(grads[0]):
            advice = "pass, or return from the closure, the gradients alone"
            raise TypeError(f"{place} is a number and more; {advice}") from None

    def _without_overlap(self, grads: Any, zero_grads: bool, partial: bool) -> Any:
        """Gradients that restoring the parameters cannot change: those that share memory with them are copied."""
        # To a step, None would mean the optimizer's own gradients.
        if grads is not None and _schuss.apart(self, grads, partial) is not None:
            return grads
        self._explain_structure(grads, partial)
        arrays = {i: leaf for i, _, leaf in trees.leaves(self._root(), grads, "grads", "params", partial=partial)}
        for i, array in arrays.items():
            if array is not None and (not isinstance(array, np.ndarray) or self._is_written(array)):
                arrays[i] = self._gradient(i, array, True, zero_grads)
        return trees.build(self._root(), arrays.__getitem__)

    def _is_written(self, array: np.ndarray) -> bool:
        """Whether an array may share memory with a parameter or a state, also of a wrapper."""
        wrappers = [wrapper() for wrapper in self._wrapped_by]
        if None in wrappers:
            self._wrapped_by = [weakref.ref(wrapper) for wrapper in wrappers if wrapper is not None]
            self._written = None
        if self._written is None:
            extra = [own for wrapper in wrappers if wrapper is not None for own in wrapper._extra]
            lists = (self._params, *self._states, *extra)
            self._written = checks.byte_ranges(array for own in lists for array in own)
        return checks.overlaps(self._written, array)

    @staticmethod
    def _step_options(grad_scale: Any, zero_grads: Any, partial: Any) -> tuple[float, bool, bool]:
        scale = 1.0 if grad_scale is None else validate.grad_scale(grad_scale)
        flags = [("zero_grads", zero_grads), ("partial", partial)]
        zero, part = (given is not None and validate.flag(name, given) for name, given in flags)
        return scale, zero, part

    def _scheduled_values(self, step: int) -> list[list[float]]:
        return [values for group in self._groups for values in group.packed_at(step)]

    def _look_again(self) -> list[tuple[Any, list[Any]]]:
        """Raises if an array was replaced where the optimizer was given it; returns what its containers have now."""
        for g, (template, structure) in enumerate(zip(self._templates, self._given_in, strict=True)):
            for i, place, array in trees.found(template, structure, self._place("params", g, "")):
                own = self._params[i]
                if array is own or not hasattr(array, "shape"):
                    continue
                # A NumPy scalar, or another library's array, has other memory.
                if not isinstance(array, np.ndarray) or checks.byte_range(array) != checks.byte_range(own):
                    raise ValueError(
                        f"{place} is not the array that this optimizer updates: it was replaced. Write into the array "
                        f"in place, {place}[...] = values, or make a new optimizer"
                    )
        pairs = zip(self._templates, self._given_in, strict=True)
        return [own for pair in pairs for own in trees.containers(*pair)]

    def _explain_structure(self, grads: Any, partial: bool) -> None:
        name = self._arguments
        if grads is None:
            raise TypeError(f"{name} is None; pass a structure like params, in which None leaves an array alone")
        if callable(grads):
            kind = type(grads).__name__
            raise TypeError(f"{name} is a {kind}, not a structure like params; call it, and pass what it returns")
        if not self._grouped:
            pairs = [(grads, name, "params")]
        elif isinstance(grads, (list, tuple)) and len(grads) == len(self._groups):
            pairs = [(own, f"{name}[{i}]", f"param_groups[{i}]['params']") for i, own in enumerate(grads)]
        else:
            got = f"{len(grads)} entries" if isinstance(grads, (list, tuple)) else trees.kind(grads)
            raise ValueError(
                f"{name} must be a list with an entry for each group, {len(self._groups)} in all, got {got}"
            )
        wrong = False
        try:
            for template, (own, place, like) in zip(self._templates, pairs, strict=True):
                for i, _, leaf in trees.leaves(template, own, place, like, partial=partial):
                    # In a list of two arrays, a loss and gradients look like the gradients of both.
                    wrong = wrong or (_is_number(leaf) and self._params[i].ndim > 0)
        except (TypeError, ValueError):
            self._refuse_loss(name, grads)
            raise
        if wrong:
            self._refuse_loss(name, grads)

    def _explain_changed(self, i: int) -> None:
        raise ValueError(
            f"{self._place('params', *self._suffixes[i])} was resized, re-pointed, retyped or made read-only after the "
            "optimizer was made; make a new optimizer"
        )

    def _refuse_changed(self, i: int | None) -> None:
        if i is not None:
            self._explain_changed(i)

    def _explain_shared(self, i: int, k: int) -> None:
        one, other = sorted((i, k))
        raise ValueError(
            f"{self._place('grads', *self._suffixes[other])} shares memory with "
            f"{self._place('grads', *self._suffixes[one])}; zero_grads=True needs gradients that share none"
        )

    def _explain_index(self, i: int, at: int, index: int) -> None:
        rows = len(self._params[i])
        raise ValueError(
            f"{self._place('grads', *self._suffixes[i])}[0] has the index {index} at position {at}; indices must be >= "
            f"0 and < {rows}, the number of rows of {self._place('params', *self._suffixes[i])}"
        )

    def _explain_nonfinite(self, i: int, at: int, so: str = "nothing was updated") -> None:
        order = checks.order(self._params[i])
        index = tuple(int(k) for k in np.unravel_index(at, self._params[i].shape, order))
        raise FloatingPointError(
            f"{self._place('grads', *self._suffixes[i])} has a NaN or infinity, first at {index}; {so}"
        )

    def _refuse_nonfinite(self, grads: Mapping[int, np.ndarray]) -> None:
        """Raises if one of these gradients, by the number of its array, has a NaN or an infinity."""
        squares, _ = _schuss.sum_of_squares(list(grads.values()))
        if np.isfinite(squares):
            return
        for i, array in grads.items():
            places = np.argwhere(~np.isfinite(array))
            if len(places):
                own = self._params[i]
                self._explain_nonfinite(
                    i, int(np.ravel_multi_index(tuple(places[0]), own.shape, order=checks.order(own)))
                )

    def _explain_disagreement(self, name: str, one: float, other: float) -> None:
        if name not in self._groups[0].hypers:  # an entry of a tuple
            name = f"{name[:-1]}s[{int(name[-1]) - 1}]"
        unless = ", or 0 to leave a group out" if name == "lr" else ""
        raise ValueError(
            f"{name} is {one:g} in one group and {other:g} in another, but there is one estimate for all groups: it "
            f"must be the same in all{unless}; nothing was updated"
        )


def _is_number(thing: Any) -> bool:
    """Whether it is a number, or an array of one, as which JAX and PyTorch return a loss."""
    return isinstance(thing, numbers.Real) or getattr(thing, "shape", None) == ()


def _may_be_rows(gradient: Any) -> bool:
    """Whether it looks like the indices and values that `step_rows` takes."""
    if not isinstance(gradient, (tuple, list)) or len(gradient) != 2 or not hasattr(gradient[1], "shape"):
        return False
    return getattr(getattr(gradient[0], "dtype", None), "kind", "i") in "iu"
