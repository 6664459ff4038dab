"""The backend for arrays on an NVIDIA GPU: device pointers, streams and the order of work in them.

It knows no optimizer class or hyperparameter. A step is launched asynchronously; the host waits only if it must know
whether the step was taken.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, formats
from schuss._arrays.layout import Matrix
from schuss._arrays.tensor_files import Stored
from schuss._backends import cuda_arrays, cuda_interop
from schuss._backends.cuda_arrays import DeviceArray
from schuss._backends.cuda_gradients import Gradients, as_given
from schuss._backends.cuda_interop import Description
from schuss._backends.protocol import Change, Copy, Counters, GroupArrays, Limits, Owner


class Cuda:
    """The backend of one optimizer whose parameters are on a GPU. Its `Core` counts steps taken and skipped."""

    def __init__(self) -> None:
        cuda_arrays.prepare()
        self.device = 0
        self.work: Any = None
        #: The library in whose current stream steps run, and the parameters of other libraries.
        self._framework = ""
        self._foreign: list[Any] = []
        #: PyTorch's parameters, which it counts the changes of.
        self._tensors: list[Any] = []
        self._group_steps: list[int] = []
        #: How many of its group's steps each array has missed; empty if none has.
        self._missed: list[int] = []
        self._rules_of_group: list[int] = []
        # The states that all arrays share, as last copied to or from the device, and whether the device has newer
        # ones.
        self._shared = b""
        self._shared_behind = False
        #: The last step's norm, ... until it is read from the device, and its bound.
        self._norm: Any = None
        self._bound: float | None = None
        self._gradients = Gradients()

    # Arrays.

    def check_format(self, state_format: formats.StateFormat) -> None:
        if not state_format.plain:
            raise TypeError("state_dtype and master_weights are for NumPy arrays; params has arrays on a GPU")

    def adapt(self, place: str, array: Any) -> DeviceArray:
        return cuda_interop.adapt(place, array)

    def check_together(self, named: Sequence[tuple[str, Any]]) -> None:
        device = cuda_arrays.check_one_device(named)
        if self.work is None:
            self.device, self.work = device, _schuss.CudaWork(device)

    def zeros(
        self,
        params: Sequence[Any],
        states: Sequence[Sequence[formats.State]],
        matrices: Sequence[Matrix | None],
        state_format: formats.StateFormat,
    ) -> list[list[DeviceArray]]:
        return cuda_arrays.zeros(params, states)

    def part(self, param: Any) -> Any:
        return param

    def stored(self, array: Any) -> Stored:
        return Stored(array, array.shape, 0, "C")

    def new_gradients(self, params: Sequence[Any]) -> list[DeviceArray]:
        return [cuda_arrays.allocate([param], [checks.compute_dtype(param.dtype)])[0] for param in params]

    def check_zeroable(self, place: str, gradient: Any) -> None:
        """Nothing to check: gradient buffers are the package's own."""

    def check_picklable(self) -> None:
        raise TypeError(
            "an optimizer over arrays on a GPU cannot be pickled or copied; use schuss.save, or state_dict()"
        )

    def arranged(
        self, owner: Owner, groups: Sequence[GroupArrays], first: int, root: Any, shared: np.ndarray | None
    ) -> list[Change]:
        new, params = groups[first:], [param for group in groups for param in group.params]
        self.norms(owner)  # read now, since the device forgets it
        framework = next((param.framework for param in params if param.framework), "")
        changes: list[Change] = [
            (self, "_framework", framework),
            (self, "_foreign", cuda_interop.arrays_of_others(params, framework)),
            (self, "_tensors", cuda_interop.counted_tensors(params)),
            (self, "_group_steps", [*self._group_steps, *(0 for _ in new)]),
            (self, "_missed", [*self._missed, *(0 for group in new for _ in group.params)] if self._missed else []),
            (self, "_rules_of_group", [*self._rules_of_group, *(len(group.rules) for group in new)]),
            *self._gradients.arranged(root, sum(len(group.params) for group in new)),
        ]
        for group in new:
            each = zip(group.rule_of, group.params, group.states, group.matrices, strict=True)
            given = [
                (rule, p.pointer, p.dtype.name, p.size, [state.pointer for state in states], matrix)
                for rule, p, states, matrix in each
            ]
            changes.append((self.work, "_added", ([(name, len(values)) for name, values in group.rules], given)))
        return changes

    def given(self, owner: Owner, templates: Sequence[Any], structures: Sequence[Any]) -> list[Change]:
        """None: arrays of other libraries may be new objects at each access."""
        return []

    def limits(self, owner: Owner, limits: Limits) -> list[Change]:
        """None: each step reads these settings from the optimizer."""
        return []

    def norms(self, owner: Owner) -> tuple[float | None, float | None]:
        if self._norm is ...:
            self._norm = self.work.norm()
        return self._norm, self._bound

    def refuse_changed(self, owner: Owner) -> None:
        """Arrays on a GPU are never resized or re-pointed."""

    def refuse_replaced(self, owner: Owner) -> None:
        """Nothing to check: arrays of other libraries may be new objects at each access."""

    def other_values(
        self, owner: Owner, wrappers: Sequence[_schuss.Core], job: Any
    ) -> contextlib.AbstractContextManager[None]:
        return self._other_values(owner, wrappers, job, len(owner._params))

    @contextlib.contextmanager
    def _other_values(self, owner: Owner, wrappers: Sequence[_schuss.Core], job: Any, arrays: int) -> Iterator[None]:
        with self._exclusive(owner, *wrappers, read_only=True):
            if len(owner._params) != arrays:
                raise ValueError("a group was added after this context was made; make a new one")
            saved = [(param, param.copy()) for param in owner._params]
            back = self.changes(copies=saved)  # now: an interrupt may come before the one below is made
            try:
                self.changes(jobs=[job]).make()
                try:
                    yield
                finally:
                    back = self.changes(copies=saved)  # in the stream that is the current one now
            finally:
                back.make()  # one native call, which is made even after an interrupt

    def changes(
        self,
        attributes: Sequence[Change] = (),
        *,
        copies: Sequence[Copy] = (),
        fills: Sequence[tuple[Any, float]] = (),
        jobs: Sequence[Any] = (),
    ) -> _schuss.Changes:
        calls, kept, on_host, fills_on_host = list(jobs), [], [], []
        for target, source in copies:
            if isinstance(target, np.ndarray):
                on_host.append((target, np.asarray(source, order=checks.order(target))))
                continue
            if not isinstance(source, DeviceArray):
                source = target.like(source)
            kept.append(source)
            calls.append((_schuss.cuda_copy, target.copy_arguments(source)))
        for target, value in fills:
            if isinstance(target, np.ndarray):
                fills_on_host.append((target, value))
            elif value == 0:
                calls.append((_schuss.cuda_zero, (self.device, target.pointer, target.nbytes, target.stream())))
            else:
                kept.append(target.like(np.full(target.shape, value, target.dtype, target.order)))
                calls.append((_schuss.cuda_copy, target.copy_arguments(kept[-1])))
        # The stream is the last argument of each call. Later work waits for the first, and that for the others.
        streams = list(dict.fromkeys(arguments[-1] for _, arguments in calls))
        calls += [(_schuss.cuda_order, (self.device, other, streams[0])) for other in streams[1:]]
        calls += [(self.work.mark, (stream,)) for stream in streams[:1]]
        return _schuss.Changes(attributes, copies=on_host, fills=fills_on_host, calls=calls, kept=kept)

    job = staticmethod(cuda_arrays.job)

    # One caller at a time.

    def counters(self, owner: Owner) -> Counters:
        steps, skipped, *_ = owner._counters
        self.follow()
        self._read_shared(owner)
        return Counters(steps, skipped, list(self._group_steps), list(self._missed))

    def counted(self, owner: Owner, counters: Counters) -> list[Change]:
        return [
            (owner, "_counters", (counters.steps, counters.skipped, [], [])),
            (self, "_group_steps", list(counters.groups)),
            (self, "_missed", list(counters.missed)),
        ]

    def _read_shared(self, owner: Owner) -> None:
        """Updates the states that all arrays share; waits for the device if it has newer ones."""
        values = owner._shared_values
        if values is not None and self._shared_behind and values.tobytes() == self._shared:
            values[...] = self.work.shared()
            self._shared = values.tobytes()
        self._shared_behind = False

    def check_idle(self, owner: Owner) -> None:
        _schuss.Core._check_idle(owner)
        self.follow()

    def exclusive(self, owner: Owner, *others: _schuss.Core) -> contextlib.AbstractContextManager[None]:
        return self._exclusive(owner, *others)

    @contextlib.contextmanager
    def _exclusive(self, owner: Owner, *others: _schuss.Core, read_only: bool = False) -> Iterator[None]:
        with _schuss.ExclusiveLock(owner, *others, read_only=read_only):
            self.follow()
            self._read_shared(owner)
            yield

    def stream(self) -> int:
        """The current stream, in which this optimizer works."""
        return cuda_arrays.current_stream(self._framework, self.device)

    def follow(self) -> None:
        """Makes the current stream wait for all work that was started before. A step does this by itself."""
        stream = self.stream()
        self.work.hold(stream)
        for other in self._foreign_streams(stream):
            _schuss.cuda_order(self.device, other, stream)

    def _foreign_streams(self, stream: int) -> set[int]:
        """The streams in which other libraries use parameters of this optimizer, without the one that it works in."""
        return {cuda_interop.describe("params", param).stream for param in self._foreign} - {0, stream}

    def count_changes(self) -> None:
        """Tells PyTorch that its parameters have changed, so that a graph which needs them as they were is refused."""
        if self._tensors:
            sys.modules["torch"].autograd.graph.increment_version(self._tensors)

    # The step.

    def step(
        self,
        owner: Owner,
        grads: Any = None,
        *,
        grad_scale: float = 1.0,
        zero_grads: bool = False,
        partial: bool = False,
    ) -> bool:
        """Starts a step; see `schuss._schuss.Core.step`."""
        scale, zero, part = owner._step_options(grad_scale, zero_grads, partial)
        with _schuss.ExclusiveLock(owner):
            return self._step(owner, owner._own_grads() if grads is None else grads, scale, zero, part)

    def run(self, owner: Owner, program: str, arrays: Any, changes: Sequence[Change]) -> None:
        """Starts another program; see `schuss._schuss.Core._run`. The caller has exclusive access."""
        values = owner._scheduled_values(owner.step_count)
        self.norms(owner)  # other tables do not have the last step's
        if arrays is None:  # such a program reads no gradients, but all have a place in the work list
            given = [p.pointer for p in owner._params], [p.dtype.name for p in owner._params]
            stream = self.stream()
            foreign = self._foreign_streams(stream)
        else:
            gradients, stream, foreign = self.read(owner, arrays, False)
            given = as_given(gradients)
        made = _schuss.Changes(changes)
        with self._ordered(foreign, stream):
            counts = self._counts(), self._missed
            self.work.step(program, values, *counts, *given, 1.0, None, False, False, False, stream, made)
        self.count_changes()

    def _counts(self) -> list[int]:
        """The number of the next step for each rule of each group."""
        return [count + 1 for count, n in zip(self._group_steps, self._rules_of_group, strict=True) for _ in range(n)]

    @contextlib.contextmanager
    def _ordered(self, foreign: set[int], stream: int) -> Iterator[None]:
        """Work in a stream that reads what other streams write: after their work so far, and before their next."""
        for other in foreign:
            _schuss.cuda_order(self.device, other, stream)
        try:
            yield
        finally:  # also after an error or an interrupt: a part of the work may be running
            try:
                for other in foreign:
                    _schuss.cuda_order(self.device, stream, other)
                self._gradients.started(self.device, stream)
            except (MemoryError, RuntimeError):
                _schuss.cuda_synchronize(self.device, stream)  # the host waits instead

    def _step(self, owner: Owner, grads: Any, grad_scale: float, zero_grads: bool, partial: bool) -> bool:
        steps, skipped = owner.step_count, owner.skipped_steps
        values = owner._scheduled_values(steps)
        if owner._shared_values is not None:
            different = self.work.disagreement(values)
            if different is not None:
                owner._explain_disagreement(*different)
            if owner._shared_values.tobytes() != self._shared:
                self.work.set_shared(owner._shared_values.tolist())
                self._shared = owner._shared_values.tobytes()
        gradients, stream, foreign = self.read(owner, grads, zero_grads, partial)
        missed = self._missed
        if None in gradients:
            before = missed or [0] * len(gradients)
            missed = [min(count + (one is None), 2**63 - 1) for count, one in zip(before, gradients, strict=True)]
        max_grad_norm, nonfinite = owner.max_grad_norm, owner.nonfinite
        measures = max_grad_norm is not None or owner.track_grad_norm
        if nonfinite == "error":
            self.norms(owner)  # of the step before: it stays if this one is not taken
        taken = _schuss.Changes(
            [
                (owner, "_counters", (steps + 1, skipped, [], [])),
                (self, "_missed", missed),
                (self, "_group_steps", [min(count + 1, 2**63 - 1) for count in self._group_steps]),
                (self, "_shared_behind", owner._shared_values is not None),
                (self, "_norm", ... if measures else None),
                (self, "_bound", max_grad_norm),
            ]
        )
        try:
            with self._ordered(foreign, stream):
                skipped_at = self.work.step(
                    "step",
                    values,
                    self._counts(),
                    self._missed,
                    *as_given(gradients),
                    grad_scale,
                    max_grad_norm,
                    nonfinite != "propagate",
                    owner.track_grad_norm,
                    zero_grads,
                    stream,
                    taken,
                    owner,
                )
        except (MemoryError, RuntimeError):  # the driver's; a part of the step may have been started
            self._shared_behind = owner._shared_values is not None
            self._norm = None if self._norm is ... else self._norm
            with contextlib.suppress(MemoryError, RuntimeError):
                _schuss.cuda_synchronize(self.device, stream)  # what is read next comes after it
            raise
        if skipped_at is not None:
            i, at, norm = skipped_at
            if nonfinite == "error":
                owner._explain_nonfinite(i, at)
            counted: Change = (owner, "_counters", (steps, skipped + 1, [], []))
            _schuss.Changes([counted, (self, "_norm", norm if measures else None), (self, "_bound", None)]).make()
            return False
        self.count_changes()
        return True

    def read(
        self, owner: Owner, grads: Any, zero_grads: bool, partial: bool = False
    ) -> tuple[list[Description | None], int, set[int]]:
        """The checked gradients, the stream to work in, and the other streams that make gradients or use parameters."""
        gradients = self._gradients.read(owner, self.device, grads, zero_grads, partial)
        stream = self.stream()
        present = [one for one in gradients if one is not None]
        frameworks = {one.framework for one in present if one.framework}
        streams = {cuda_arrays.current_stream(name, self.device) for name in frameworks}
        streams |= {one.stream for one in present if not one.framework} | self._foreign_streams(stream)
        return gradients, stream, streams - {0, stream}
