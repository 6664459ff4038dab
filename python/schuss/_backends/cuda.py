"""Optimizers whose parameters lie on a GPU: what is different there.

`adopt` gives an optimizer that is being made a class which is its own with this module's in front: where the arrays are
NumPy's, nothing of this is in the way.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, cast

from schuss import _schuss
from schuss._arrays import checks, formats, trees
from schuss._backends import cuda_arrays
from schuss._backends.cuda_arrays import DeviceArray
from schuss._core.optimizer import Optimizer

_IN_A_STEP = (
    "this optimizer is in the middle of a step (in another thread, or called from its own schedule); "
    "step it from one place at a time"
)


_NOBODY = -1  # holds what nobody may change, and everybody read


def adopt(optimizer: Optimizer) -> None:
    """Makes an optimizer, before it has any arrays, one for a GPU."""
    if not optimizer._on_gpu:
        raise TypeError(f"{type(optimizer).__name__} works on NumPy arrays only; params has arrays on a GPU")
    cuda_arrays.prepare()
    optimizer.__class__ = _variant(cast(Any, type(optimizer)))
    OnGpu._begin(cast(Any, optimizer))


@functools.cache
def _variant(kind: Any) -> Any:
    body = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (OnGpu, kind), body)


class OnGpu(Optimizer):
    """What stands in front of an optimizer's class when its parameters are on a GPU."""

    def _begin(self) -> None:
        self._params: list[Any]
        self._device = 0
        self._last_stream = cuda_arrays.LEGACY
        self._work: Any = None
        # Taken by a step, and by who has more to do with the optimizer than one: then also by which thread.
        self._busy = threading.Lock()
        self._holder = 0
        self._in_step = False
        self._taken, self._left = 0, 0
        self._group_steps: list[int] = []
        self._norm: Any = None
        self._seen: list[Any] = []
        self._kept: list[Any] = []

    # Construction.

    def _extend(self, additions: list[tuple[Any, dict[str, Any]]]) -> None:
        adapted = []
        named: list[tuple[str, Any]] = [
            (self._place("params", *at), array) for at, array in zip(self._suffixes, self._params, strict=True)
        ]
        for k, (structure, given) in enumerate(additions):
            where = f"param_groups[{len(self._groups) + k}]['params']" if self._grouped else "params"
            template, leaves = trees.flatten(structure, where)
            arrays = [cuda_arrays.adapt(where + suffix, array) for suffix, array in leaves]
            adapted.append((trees.build(template, arrays.__getitem__), given))
            named += [(where + suffix, array) for (suffix, _), array in zip(leaves, arrays, strict=True)]
        if named:
            device = cuda_arrays.check_one_device(named)
            if self._work is None:
                self._device, self._work = device, _schuss.CudaWork(device)
        super()._extend(adapted)

    def _check_param(self, place: str, array: Any) -> None:
        """Nothing is left to check when it has been adapted."""

    def _set_state_format(self, keeping: formats.StateFormat) -> None:
        if not keeping.plain:
            raise TypeError("state_dtype and master_weights are for NumPy arrays; params has arrays on a GPU")
        super()._set_state_format(keeping)

    def _zeros(self, params: list[Any], states: Sequence[Sequence[formats.State]]) -> list[list[Any]]:
        return cuda_arrays.zeros(params, len(states[0])) if states[0] else [[] for _ in params]

    def _kernel_states(self, i: int) -> list[Any]:
        return self._states[i]

    def _add_group(self, rule: str, values: Any, params: Any, states: Any, center: Any, tree: Any, *_kept: Any) -> None:
        def rows(array: DeviceArray, centered: bool) -> int:
            return array.shape[0] if centered and array.ndim > 1 and array.size else 0

        given = [
            (p.pointer, p.dtype.name, p.size, [s.pointer for s in own], rows(p, centered), p.order == "F")
            for p, own, centered in zip(params, states, center, strict=True)
        ]
        self._work.add_group(rule, len(values), given)
        self._group_steps.append(0)
        self._seen += [None] * len(params)

    def _configure(self, max_grad_norm: float | None, nonfinite: str) -> None:
        """The step reads both where it is taken."""

    # Counters.

    @property
    def step_count(self) -> int:
        """Steps taken."""
        return self._taken

    @property
    def skipped_steps(self) -> int:
        """Steps not taken because a gradient was not finite."""
        return self._left

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the last step's gradients, where the step measured it; waits for the step."""
        if self._norm is ...:
            self._norm = self._work.norm()
        norm: float | None = self._norm
        return norm

    def _counters(self) -> tuple[int, int, list[int]]:
        if self._holder == _NOBODY:
            self._follow()
        else:
            self._refuse_others()
        return self._taken, self._left, list(self._group_steps)

    def _set_counters(self, steps: int, skipped: int, groups: Any) -> None:
        self._refuse_others()
        self._taken, self._left, self._group_steps = steps, skipped, list(groups)

    def _check_idle(self) -> None:
        if self._busy.locked():
            raise RuntimeError(_IN_A_STEP)
        self._follow()

    @contextlib.contextmanager
    def _exclusive(self, *others: _schuss.Core, nobody: bool = False) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(_IN_A_STEP)
        try:
            with _schuss.Hold(*others, nobody=nobody):
                self._holder = _NOBODY if nobody else threading.get_ident()
                self._follow()
                yield
        finally:
            self._holder = 0
            self._busy.release()

    def _held(self) -> bool:
        """Whether this thread holds the optimizer, and is not in a step."""
        return self._holder == threading.get_ident() and not self._in_step

    def _refuse_others(self) -> None:
        if self._busy.locked() and not self._held():
            raise RuntimeError(_IN_A_STEP)
        self._follow()

    def _follow(self) -> int:
        """The stream that is now the one to work in; what is done there follows what was done before in another."""
        stream = self._stream()
        if stream != self._last_stream:
            _schuss.cuda_order(self._device, self._last_stream, stream)
            self._last_stream = stream
        return stream

    # The step.

    def step(self, grads: Any = None, *, grad_scale: float = 1.0, zero_grads: bool = False) -> bool:
        """Starts a step on the GPU; see `schuss._schuss.Core.step`.

        The host does not wait for it, except with ``nonfinite="skip"`` or ``"error"``, where it must know.
        """
        scale, zero = self._step_options(grad_scale, zero_grads)
        held = self._held()
        if not held and not self._busy.acquire(blocking=False):
            raise RuntimeError(_IN_A_STEP)
        self._in_step = True
        try:
            return self._step(self._own_grads() if grads is None else grads, scale, zero)
        finally:
            self._in_step = False
            if not held:
                self._busy.release()

    def _step(self, grads: Any, grad_scale: float, zero_grads: bool) -> bool:
        values = self._scheduled_values(self._taken)
        seen, stream, foreign = self._read(grads, zero_grads)
        for other in foreign:
            _schuss.cuda_order(self._device, other, stream)
        bad, norm = self._work.step(
            values,
            [steps + 1 for steps in self._group_steps],
            [one.pointer for one in seen],
            [one.dtype for one in seen],
            grad_scale,
            self._max_grad_norm,
            self._nonfinite != "propagate",
            int(zero_grads),
            stream,
        )
        for other in foreign:  # they may write new gradients there when the step has read these
            _schuss.cuda_order(self._device, stream, other)
        if bad is not None:
            if self._nonfinite == "error":
                self._explain_nonfinite(*bad)
            self._left += 1
            return False
        self._group_steps = [steps + 1 for steps in self._group_steps]
        self._taken += 1
        self._norm = None if self._max_grad_norm is None else ... if norm is None else norm
        return True

    def _read(self, grads: Any, zero_grads: bool) -> tuple[list[cuda_arrays.Seen], int, set[int]]:
        """The gradients, checked; the stream to work in; and others in which gradients were made."""
        leaves: list[Any] = []
        if not _collect(self._root(), grads, leaves):
            self._explain_structure(grads)
        for i, leaf in enumerate(leaves):
            key = _key(leaf)
            if self._seen[i] is None or key is None or self._seen[i][0] != key:
                self._seen[i] = (key, self._look(i, leaf, zero_grads))
        seen = [entry[1] for entry in self._seen]
        if zero_grads:
            self._check_zeroable(seen)
        # PyTorch and CuPy reuse memory in the order of streams; what others free must outlive the step.
        self._kept = [leaf for leaf, one in zip(leaves, seen, strict=True) if not one.framework]
        stream = self._follow()
        streams = {cuda_arrays.current_stream(name, self._device) for name in {one.framework for one in seen} if name}
        return seen, stream, (streams | {one.stream for one in seen if not one.framework}) - {stream}

    def _stream(self) -> int:
        """The stream of the library whose arrays the parameters are."""
        frameworks = (param.framework for param in self._params)
        return cuda_arrays.current_stream(next((name for name in frameworks if name), ""), self._device)

    def _look(self, i: int, gradient: Any, zero_grads: bool) -> cuda_arrays.Seen:
        """A gradient, checked against its parameter."""
        place, param_place = self._place("grads", *self._suffixes[i]), self._place("params", *self._suffixes[i])
        param = self._params[i]
        if gradient is None:
            raise TypeError(f"{place} is None; pass zeros for a parameter without gradient")
        if not checks.is_on_gpu(gradient):
            raise TypeError(
                f"{place} is {trees.kind(gradient)} in host memory, but {param_place} is on a GPU; move it there first"
            )
        seen = cuda_arrays.see(place, gradient)
        if seen.dtype not in ("float32", "float64", "float16", "bfloat16"):
            raise TypeError(f"{place} has dtype {seen.dtype}; a gradient must be float32, float64, float16 or bfloat16")
        if seen.shape != param.shape:
            raise ValueError(f"{place} has shape {seen.shape}, but {param_place} has shape {param.shape}")
        device = _schuss.cuda_device_of(seen.pointer) if param.size else self._device
        if device != self._device:
            raise ValueError(f"{place} is on device {device}, but {param_place} is on device {self._device}")
        same = seen.order == param.order or param.ndim < 2 or _both(param.shape)
        if seen.order is None or not same:
            raise ValueError(
                f"{place} does not lie in memory as {param_place} does, contiguous in {param.order} order; copy it so"
            )
        view = DeviceArray(
            seen.pointer, seen.shape, cuda_arrays.dtype_of(seen.dtype), param.order, self._device, None, ""
        )
        if seen.pointer % view.itemsize:
            raise ValueError(f"{place} is not aligned to its {view.itemsize}-byte elements")
        if self._is_written(view):  # type: ignore[arg-type]
            raise ValueError(f"{place} shares memory with a parameter or a state; pass a copy")
        if zero_grads and not seen.writable:
            raise ValueError(f"{place} is read-only, so it cannot be zeroed; pass a copy")
        return seen

    def _check_zeroable(self, seen: list[cuda_arrays.Seen]) -> None:
        """Raises when a gradient cannot be set to zero, or two are one."""
        size = {"float64": 8, "float32": 4}
        ranges = []
        for i, (one, param) in enumerate(zip(seen, self._params, strict=True)):
            if not one.writable:
                raise ValueError(
                    f"{self._place('grads', *self._suffixes[i])} is read-only, so it cannot be zeroed; pass a copy"
                )
            if param.size:
                ranges.append((one.pointer, one.pointer + param.size * size.get(one.dtype, 2), i))
        ranges.sort()
        for (_, end, i), (start, _, k) in itertools.pairwise(ranges):
            if end > start:
                self._explain_shared(i, k)

    # Gradient buffers, state and copies.

    def _keep_params(self) -> Any:
        return [param.copy() for param in self._params]

    def _restore_params(self, kept: Any) -> None:
        for param, values in zip(self._params, kept, strict=True):
            param[...] = values

    def _new_gradient(self, i: int) -> Any:
        param: Any = self._params[i]
        return cuda_arrays.allocate([param], [checks.compute_dtype(param.dtype)])[0]

    def zero_grad(self) -> None:
        """Sets the optimizer's own gradient buffers to zero."""
        if self._grads is not None:
            for _, _, gradient in list(trees.leaves(self._root(), self._grads, "grads", "params")):
                gradient.fill(0)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "an optimizer over arrays on a GPU cannot be pickled or copied; use schuss.save, or state_dict()"
        )


def _both(shape: tuple[int, ...]) -> bool:
    """Whether C and Fortran order are the same for this shape."""
    return sum(n != 1 for n in shape) < 2 or 0 in shape


def _key(leaf: Any) -> Any:
    """What is the same as long as a gradient need not be looked at again; None where looking is as cheap."""
    if type(leaf).__module__ == "torch":
        return leaf.data_ptr(), leaf.dtype, leaf.shape, leaf.stride()
    if isinstance(leaf, DeviceArray):
        return leaf.pointer, leaf.dtype, leaf.shape, leaf.order
    return None


def _collect(template: Any, structure: Any, leaves: list[Any]) -> bool:
    """Collects the leaves of a structure in the template's order; false when it is unlike."""
    if isinstance(template, dict):
        if not isinstance(structure, dict) or len(structure) != len(template):
            return False
        return all(key in structure and _collect(value, structure[key], leaves) for key, value in template.items())
    if isinstance(template, (list, tuple)):
        if not isinstance(structure, (list, tuple)) or len(structure) != len(template):
            return False
        return all(_collect(one, own, leaves) for one, own in zip(template, structure, strict=True))
    leaves.append(structure)
    return True
