"""Offloading: parameters on a GPU, optimizer state on the host, for state that does not fit in GPU memory.

It knows no optimizer class.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, trees
from schuss._backends import cuda_arrays, tools
from schuss._backends.cuda import Cuda
from schuss._backends.cuda_arrays import DeviceArray
from schuss._backends.cuda_gradients import as_given
from schuss._backends.protocol import Counters
from schuss._core.descent import Descent
from schuss._core.given_groups import are_groups, listed
from schuss._core.hyperparameters import Rate
from schuss._core.optimizer import Optimizer
from schuss._core.rules import RULES

_PIECE = 1 << 20  # elements per chunk; each chunk is copied while the previous one is updated

#: A function of the extension module and its arguments.
_Call = tuple[Callable[..., Any], tuple[Any, ...]]


class _Device(Descent):
    """Holds the parameters on the GPU and reads their gradients; it is never stepped."""

    lr: Rate = 0.0


class Offload:
    """An optimizer with state and master weights in host memory, and parameters and gradients on a GPU.

    Gradients are copied to the host in chunks; while one chunk is being copied, the CPU updates the previous one, and
    the one before that is copied back to the GPU in the parameters' dtype. Master weights have the dtype that the
    update is computed in, so 16-bit parameters lose no update to rounding. A step returns when the host's part is done.

    Parameters
    ----------
    kind : type
        One of the package's classes whose step applies one rule to each array (not `Lookahead`, `Ranger`, `NAG`,
        `Newton`, `LBFGS`, `Muon`, `SOAP`, `Shampoo`, or `Prodigy` and others with an estimate over all arrays).
    params : array, list, tuple, dict, or list of group dicts
        Arrays on one GPU, to be updated in place.
    **hypers
        The other arguments of `kind`, except ``state_dtype`` and ``master_weights``: the state has full precision, and
        there are always master copies.

    Raises
    ------
    TypeError, ValueError
        An array or a hyperparameter cannot be used; the message names it.
    RuntimeError
        There is no driver or no NVRTC; the message says what is missing.

    Notes
    -----
    The wrapped optimizer is `optimizer`: use its groups, state and checkpoints as usual; its parameters are the master
    weights. After ``schuss.load(path, offload.optimizer)`` or other changes of the master weights,
    call `upload` to copy them to the GPU.

    Examples
    --------
    ``opt = schuss.Offload(schuss.AdamW, params, lr=1e-4)``, then ``opt.step(grads)``.
    """

    def __init__(self, kind: type[Optimizer], params: Any, **hypers: Any) -> None:
        if not (isinstance(kind, type) and issubclass(kind, Optimizer) and kind._single_rule and kind is not Optimizer):
            raise TypeError(f"Offload takes a class whose step is a rule on each array, such as AdamW, got {kind!r}")
        params = listed(params)
        grouped = are_groups(params)
        if not checks.any_on_gpu(params):
            raise TypeError("Offload is for parameters on a GPU; NumPy arrays need none")
        self._gpu_params = _Device([{"params": entry["params"]} for entry in params] if grouped else params)
        self._gpu = cast(Cuda, self._gpu_params._backend)
        self._device: int = self._gpu.device
        masters = [np.asarray(p).astype(checks.compute_dtype(p.dtype), order="K") for p in self._gpu_params._params]
        built = [trees.build(template, masters.__getitem__) for template in self._gpu_params._templates]
        if grouped:
            groups = [{**entry, "params": own} for entry, own in zip(params, built, strict=True)]
            self._optimizer = kind(groups, **hypers)
        else:
            self._optimizer = kind(built[0], **hypers)
        if not self._optimizer._state_format.plain:
            raise TypeError(
                "Offload keeps master copies by itself, and its state in full: no state_dtype, no master_weights"
            )
        self._rules = [rule for group in self._optimizer.param_groups for rule in group.rules]
        if any(RULES[rule].shared for rule in self._rules):
            raise TypeError(f"Offload takes a class whose step is a rule on each array, not {kind.__name__}")
        self._own_streams = [_schuss.CudaStream(self._device) for _ in range(2)]
        self._streams = [stream.handle for stream in self._own_streams]  # from the device, and to it
        self._arrived, self._returned = ([_schuss.CudaEvent(self._device) for _ in range(2)] for _ in range(2))
        self._buffers: list[_Pinned] = []
        self._norm: float | None = None

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer on the host, over the master weights."""
        return self._optimizer

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the last step's gradients, if ``max_grad_norm`` or ``track_grad_norm`` is set."""
        return self._norm

    def step(self, grads: Any, *, grad_scale: float = 1.0, zero_grads: bool = False) -> bool:
        """Takes one step; arguments, result and errors are those of an optimizer on the GPU."""
        scale, zero, _ = self._optimizer._step_options(grad_scale, zero_grads, None)
        with self._optimizer._exclusive():
            return self._step(grads, scale, zero)

    def _step(self, grads: Any, scale: float, zero: bool) -> bool:
        optimizer, gpu_params = self._optimizer, self._gpu_params
        counters = optimizer._read_counters()
        steps, missed = counters.steps, counters.missed or [0] * len(optimizer._params)
        values: list[np.ndarray] = []
        for group in optimizer.param_groups:
            own = dict(zip(dict.fromkeys(group.variants), group.packed_at(steps), strict=True))
            values += [np.array(own[variant]) for variant in group.variants]
        gradients, stream, foreign = self._gpu.read(gpu_params, grads, zero)
        inward, outward = self._streams
        factor, norm, bad = 1.0 / scale, None, None
        if optimizer.max_grad_norm is not None or optimizer.track_grad_norm or optimizer.nonfinite != "propagate":
            for other in foreign:
                _schuss.cuda_order(self._device, other, stream)
            bad, measured, clipped = self._gpu.work.measure(
                *as_given(gradients), scale, optimizer.max_grad_norm, stream
            )
            if optimizer.max_grad_norm is not None:
                factor = clipped
            if optimizer.max_grad_norm is not None or optimizer.track_grad_norm:
                norm = measured
        if bad is not None and optimizer.nonfinite == "error":
            gpu_params._explain_nonfinite(*bad)
        for other in {stream, *foreign}:
            _schuss.cuda_order(self._device, other, inward)
            _schuss.cuda_order(self._device, other, outward)
        taken = bad is None or optimizer.nonfinite == "propagate"
        calls: list[_Call] = []
        if taken:
            self._reserve()
            numbers = [
                counters.groups[group] - count + 1
                for (group, _), count in zip(optimizer._suffixes, missed, strict=True)
            ]
            calls += self._update(gradients, values, numbers, factor)
            groups = [count + 1 for count in counters.groups]
            if None in gradients:
                missed = [count + (one is None) for count, one in zip(missed, gradients, strict=True)]
            counted = optimizer._counted(Counters(steps + 1, counters.skipped, groups, missed))
        else:
            counted = optimizer._counted(counters._replace(skipped=counters.skipped + 1))
        if zero:
            for one, param in zip(gradients, gpu_params._params, strict=True):
                if one is None:
                    continue
                size = param.size * cuda_arrays.dtype_of(one.dtype).itemsize
                calls.append((_schuss.cuda_zero, (self._device, one.pointer, size, inward)))
        for other in {stream, *foreign}:
            calls += [(_schuss.cuda_order, (self._device, own, other)) for own in (inward, outward)]
        calls.append((_schuss.Changes([*counted, (self, "_norm", norm)]).make, ()))
        try:
            _schuss.Changes(calls=calls).make()
        except (MemoryError, RuntimeError):  # the driver's; copies that have been started end before any others
            with contextlib.suppress(MemoryError, RuntimeError):
                for stream in self._streams:
                    _schuss.cuda_synchronize(self._device, stream)
            raise
        if taken:
            self._gpu.count_changes()
        return taken

    def upload(self) -> None:
        """Copies the master weights to the GPU, after something other than a step has changed them."""
        gpu_params = cast(list[DeviceArray], self._gpu_params._params)
        values = [
            np.asarray(master, param.dtype, order=param.order)
            for param, master in zip(gpu_params, self._optimizer._params, strict=True)
        ]
        # In the stream of a step's own copies, since these may not have ended.
        outward = self._streams[1]
        self._gpu.follow()
        _schuss.cuda_order(self._device, self._gpu.stream(), outward)
        calls = [
            (_schuss.cuda_copy, (self._device, param.pointer, own.ctypes.data, param.nbytes, outward, True))
            for param, own in zip(gpu_params, values, strict=True)
        ]
        _schuss.Changes(calls=calls, kept=values).make()
        self._gpu.count_changes()

    def _pieces(self) -> Iterator[tuple[int, int, int]]:
        """Array number, start and length of each chunk; arrays whose rule is not elementwise are one chunk."""
        for i, (rule, param) in enumerate(zip(self._rules, self._optimizer._params, strict=True)):
            n = param.size
            size = _PIECE if RULES[rule].elementwise else max(n, 1)
            yield from ((i, at, min(size, n - at)) for at in range(0, n, size))

    def _reserve(self) -> None:
        """Allocates pinned memory for two chunks in each direction, if needed."""
        most = max((n for _, _, n in self._pieces()), default=0)
        if not self._buffers or self._buffers[0].bytes < 8 * most:
            _schuss.cuda_synchronize(self._device, self._streams[1])  # no copy from the old buffers is pending
            self._buffers = [_Pinned(self._device, 8 * most) for _ in range(4)]

    def _update(self, gradients: Any, values: list[np.ndarray], numbers: list[int], factor: float) -> list[_Call]:
        """The calls that update all chunks; no code in Python, which could be interrupted, comes between them."""
        optimizer, (inward, outward) = self._optimizer, self._streams
        pieces = [piece for piece in self._pieces() if gradients[piece[0]] is not None]
        calls: list[_Call] = []

        def copy_in(k: int) -> None:
            i, at, n = pieces[k]
            size = cuda_arrays.dtype_of(gradients[i].dtype).itemsize
            source = gradients[i].pointer + at * size
            calls.append((_schuss.cuda_copy, (self._device, self._buffers[k % 2].pointer, source, n * size, inward)))
            calls.append((self._arrived[k % 2].record, (inward,)))

        if pieces:
            copy_in(0)
        for k, (i, at, n) in enumerate(pieces):
            if k + 1 < len(pieces):
                copy_in(k + 1)  # into the buffer that the previous update has finished reading
            rule, place = self._rules[i], slice(at, at + n)
            param: Any = self._gpu_params._params[i]
            gradient = self._buffers[k % 2].view(n, gradients[i].dtype)
            master, *states = (a.ravel(order="K")[place] for a in (optimizer._params[i], *optimizer._states[i]))
            group = optimizer.param_groups[optimizer._suffixes[i][0]]
            matrix = optimizer._matrix(group.initial_hypers, optimizer._params[i]) if RULES[rule].needs_matrix else None
            given = ([master], [gradient], [states], [matrix])
            out = self._buffers[2 + k % 2]
            rounded = tools.job("copy", [out.view(n, param.dtype.name)], grads=[master])
            to, size = param.pointer + at * param.itemsize, n * param.itemsize
            calls += [
                (self._arrived[k % 2].wait, ()),
                (_schuss.Job(rule, "step", [values[i]], numbers[i], *given, None, factor).run, ()),
                (self._returned[k % 2].wait, ()),
                (rounded.run, ()),
                (_schuss.cuda_copy, (self._device, to, out.pointer, size, outward)),
                (self._returned[k % 2].record, (outward,)),
            ]
        return calls

    def __repr__(self) -> str:
        return f"Offload from device {self._device} to {self._optimizer!r}"


class _Pinned:
    """Pinned host memory, viewed as NumPy arrays."""

    def __init__(self, device: int, size: int) -> None:
        self.bytes = size
        self._block = _schuss.CudaBlock(device, size, True)
        self.pointer = self._block.pointer
        self._memory: Any = (ctypes.c_char * max(size, 1)).from_address(self.pointer)

    def view(self, n: int, dtype: str) -> np.ndarray:
        kind = cuda_arrays.dtype_of(dtype)
        checks.known_dtype(kind)
        return np.frombuffer(self._memory, np.uint8, n * kind.itemsize).view(kind)
