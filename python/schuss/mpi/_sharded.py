"""`Sharded`: an optimizer whose state is shared by the processes of an MPI job. It knows no optimizer class by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from schuss._arrays import checks, trees
from schuss._backends.host import NEW
from schuss._core.group import ParamGroup
from schuss._core.optimizer import Optimizer
from schuss._core.validate import flag, grad_scale
from schuss.mpi import _exchange, _files
from schuss.mpi._backend import ShardedHost
from schuss.mpi._exchange import mpi
from schuss.optimizers import OPTIMIZERS

T = TypeVar("T")

#: Methods of some optimizers that run over all parameters, so that every process has to call them.
_TOGETHER = ("eval", "train", "update_hessian")
#: Methods that change nothing. All others would change the optimizer of one process alone.
_READING = ("metrics",)


class Sharded:
    r"""An optimizer whose state is divided among the processes of an MPI job (ZeRO, stage 1).

    Every process has all parameters and its own gradients, and a part of every state: with :math:`R` processes,
    :math:`1/R` of it. In a step the processes add their gradients, each updates its part of the parameters, and all get
    the others' parts. All processes construct it, and call ``step``, ``save`` and ``load``, in the same order.

    The result does not depend on the number of processes, to the last bit, if the gradients that are added are the
    same: they are numbered, and added in a binary tree whose shape depends on their number alone. Norms, skipped steps
    and layerwise rules are those of one process.

    Parameters
    ----------
    kind : class
        One of ``schuss.OPTIMIZERS`` but `Newton`, `LBFGS`, `Muon` and `SOAP`.
    params : structure of arrays, or list of group dicts
        As for the class itself; the same structure in every process. Process 0 sends its values to the others.
    comm : mpi4py communicator, default MPI.COMM_WORLD
        The processes; it is duplicated.
    microbatches : int, optional
        The number of gradients that a step adds, at least one a process; one a process by default. Process :math:`r`
        computes those of the numbers ``opt.microbatches`` and passes all but the last to :meth:`accumulate`.
    bucket_size : int, default 1_048_576
        The elements that are exchanged at a time, of all processes together. Each process has buffers of about seven
        times as many elements, more if the gradients that it accumulates are sent as several sums.
    **options
        The options of the class, as hyperparameters of an optimizer; the same in every process.

    Raises
    ------
    TypeError, ValueError
        Wrong in one process, or different among them; the same error in all.

    Notes
    -----
    Start programs with ``mpiexec -n 4 python -m mpi4py program.py``: then a process that ends with an exception ends
    the job, instead of leaving the others waiting for it.

    References
    ----------
    Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models", arXiv:1910.02054.

    Examples
    --------
    With one process, as here, it computes what the optimizer itself does:

    >>> import numpy as np, schuss.mpi
    >>> w = np.ones(3, np.float32)
    >>> opt = schuss.mpi.Sharded(schuss.SGD, w, lr=0.5)
    >>> opt.step(np.ones(3, np.float32))
    True
    >>> w
    array([0.5, 0.5, 0.5], dtype=float32)
    """

    #: For messages of functions that take optimizers.
    _refusal = "; it has its own save() and load(), and no wrapper can be around it"

    def __init__(
        self,
        kind: type[Optimizer],
        params: Any,
        *,
        comm: Any = None,
        microbatches: int | None = None,
        bucket_size: int = 1 << 20,
        **options: Any,
    ) -> None:
        self._comm = _communicator(comm).Dup()
        rank, ranks = self._comm.Get_rank(), self._comm.Get_size()
        count = ranks if microbatches is None else microbatches
        leaves = self._together(lambda: _checked(kind, params, count, bucket_size, ranks))
        # Before the arrays are checked one by one, so that all processes take part.
        names = {name: _layout(array) for name, array in leaves}
        _exchange.together(
            self._comm, lambda: None, {"the optimizer": kind.__name__, "bucket_size": bucket_size, **_in_words(names)}
        )
        self._backend = ShardedHost(rank, ranks, bucket_size, count)

        for _, array in leaves:
            if array.flags.writeable and (array.flags.c_contiguous or array.flags.f_contiguous):
                _exchange.broadcast(self._comm, array)

        def make() -> Optimizer:
            token = NEW.set(self._backend)
            try:
                return kind(params, **options)
            finally:
                NEW.reset(token)

        self._optimizer: Optimizer = self._together(make)
        _exchange.together(self._comm, lambda: None, self._description())
        assert self._backend.shards is not None
        self._shards = self._backend.shards
        self._buffers = _exchange.connect(self._shards, self._comm)
        _exchange.set_threads(self._comm)
        self._numbers = range(count * rank // ranks, count * (rank + 1) // ranks)
        self._sums: list[tuple[int, int, np.ndarray, Any]] = []
        self._accumulated = 0

    # Steps.

    def step(
        self, local_grads: Any = None, *, average: bool = True, grad_scale: float = 1.0, zero_grads: bool = False
    ) -> bool:
        """Takes a step with the sum or the mean of all gradients; every process calls it.

        Parameters
        ----------
        local_grads : structure of arrays
            This process's gradient, its last one if it has several; for `NAG`, the function that computes it. Arrays
            whose gradient is None are left out; they must be the same in every process.
        average : bool, default True
            Divide the sum by the number of gradients that were added.
        grad_scale : float, default 1.0
            What gradients are divided by besides.
        zero_grads : bool, default False
            Set this process's gradients to zero after use.

        Returns
        -------
        bool
            Whether the step was taken, in all processes; it is not when ``nonfinite="skip"`` and the sum of gradients
            has a NaN or an infinity.

        Raises
        ------
        TypeError, ValueError
            In one process, gradients do not fit, or hyperparameters differ from the others'; it is the same error in
            all, and nothing has changed.
        FloatingPointError
            The sum has a NaN or an infinity and ``nonfinite="error"``; the place is the same in all.
        RuntimeError
            A message failed in the middle of the step; then parameters and state are not usable.
        """

        def take() -> bool:
            scale = _scale(grad_scale, average, self._count)
            if self._accumulated + 1 < len(self.microbatches):
                raise ValueError(
                    f"this process has accumulated {self._accumulated} of {len(self.microbatches)} gradients; pass all "
                    "but the last to accumulate()"
                )
            if not self._sums:
                return self._optimizer.step(local_grads, grad_scale=scale, zero_grads=zero_grads)
            last = self._with(local_grads)
            zero = flag("zero_grads", zero_grads)
            taken = self._optimizer.step(last, grad_scale=scale)
            if zero:
                for _, _, array in self._leaves(local_grads):
                    array.fill(0)
            return taken

        before = list(self._sums)
        try:
            return self._exchanged(take, lambda: self._arguments(average, grad_scale, local_grads))
        finally:
            # After an error in the arguments the gradients are still there.
            if self._shards.phase == 1:
                self._sums, self._accumulated = [], 0
            else:
                self._sums = before

    @property
    def microbatches(self) -> range:
        """The numbers of this process's gradients in a step."""
        return self._numbers

    @property
    def _count(self) -> int:
        return self._backend._microbatches

    def accumulate(self, local_grads: Any) -> None:
        """Adds one of this process's gradients of the next step; it is copied, and nothing is sent.

        With ``microbatches`` gradients a step, a process passes all of its own but the last to this method, in order,
        and the last to :meth:`step`.

        Parameters
        ----------
        local_grads : structure of arrays
            In the structure of the parameters.

        Raises
        ------
        TypeError, ValueError
            It does not fit the parameters, or is one too many; nothing has changed.

        Examples
        --------
        >>> import numpy as np, schuss.mpi
        >>> w = np.zeros(2)
        >>> opt = schuss.mpi.Sharded(schuss.SGD, w, lr=1.0, microbatches=2)
        >>> opt.accumulate(np.array([1.0, 3.0]))
        >>> opt.step(np.array([3.0, 5.0]))
        True
        >>> w
        array([-2., -4.])
        """
        if self._accumulated + 1 >= len(self.microbatches):
            raise ValueError(
                f"this process has {len(self.microbatches)} of the {self._count} gradients of a step; pass the last to "
                "step(), or make the optimizer with microbatches= the number of all"
            )
        sums = list(self._sums)
        self._push(sums, self.microbatches[self._accumulated], local_grads)
        self._sums, self._accumulated = sums, self._accumulated + 1

    def _with(self, local_grads: Any) -> Any:
        """The last of this process's sums with one more gradient, as a structure; the others are left in `_sums`."""
        sums = list(self._sums)
        self._push(sums, self.microbatches[-1], local_grads)
        self._sums = sums[:-1]
        self._shards.begin([memory for _, _, memory, _ in self._sums])
        return sums[-1][3]

    def _push(self, sums: list[tuple[int, int, np.ndarray, Any]], number: int, grads: Any) -> None:
        """Appends a gradient to sums; a pair of equally long sums that begins at a multiple of both becomes one."""
        memory, arrays = self._packed()
        for i, place, gradient in self._leaves(grads):
            if gradient is None:
                raise TypeError(f"{place} is None; gradients that are accumulated are needed for all arrays")
            usable = checks.as_gradient(place, gradient, f"params{place[5:]}", self._optimizer._params[i])
            np.copyto(arrays[i], usable, casting="same_kind")
        sums.append((number, 1, memory, trees.build(self._optimizer._root(), arrays.__getitem__)))
        while len(sums) > 1 and sums[-2][1] == sums[-1][1] and sums[-2][0] % (2 * sums[-1][1]) == 0:
            (first, count, _, left), (_, _, memory, right) = sums[-2:]
            for (_, _, one), (_, _, other) in zip(self._leaves(left), self._leaves(right), strict=True):
                np.add(one, other, out=other)  # the later one is new, the earlier is needed after an error
            sums[-2:] = [(first, 2 * count, memory, right)]

    def _packed(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Memory for one gradient of all parameters, and its arrays."""
        params = self._optimizer._params
        sizes = [param.size * checks.compute_dtype(param.dtype).itemsize for param in params]
        memory = np.empty(sum(-(-size // 8) for size in sizes), np.float64).view(np.uint8)
        arrays, at = [], 0
        for param, size in zip(params, sizes, strict=True):
            view = memory[at : at + size].view(checks.compute_dtype(param.dtype))
            arrays.append(view.reshape(param.shape, order=checks.order(param)))
            at += -(-size // 8) * 8
        return memory, arrays

    def _leaves(self, grads: Any) -> Iterator[tuple[int, str, Any]]:
        return trees.leaves(self._optimizer._root(), grads, "grads", "params")

    def _arguments(self, average: Any, scale: Any, grads: Any) -> dict[str, Any]:
        """What processes may differ in, of arguments that are right."""
        absent = [] if callable(grads) else [place for _, place, leaf in self._leaves(grads) if leaf is None]
        return {"average": average, "grad_scale": scale, "the arrays without gradients": absent}

    def _exchanged(self, function: Callable[[], T], arguments: Callable[[], dict[str, Any]] = dict) -> T:
        """The result of a function that exchanges a step."""
        describe = lambda: {**self._description(), **_in_words(arguments())}  # noqa: E731
        return _exchange.step(self._shards, self._comm, [], function, describe)

    def _together(self, function: Callable[[], T]) -> T:
        """The result of a function that sends nothing; its error in one process is that of all."""
        return _exchange.together(self._comm, function)

    def _description(self) -> dict[str, str]:
        """What must be the same in all processes, in words."""
        optimizer = self._optimizer
        own: dict[str, Any] = {name: optimizer._option(name) for name in ("track_grad_norm", *optimizer._settings)}
        own |= {"the number of steps": optimizer.step_count, "the state's options": optimizer._state_format}
        rates = optimizer._stepped._scheduled_values(optimizer.step_count)
        for i, group in enumerate(optimizer.param_groups):
            for name, value in group.hypers.items():
                own[f"param_groups[{i}][{name!r}]"] = "a schedule" if callable(value) else value
        own |= {f"the values of group {i} at this step": values for i, values in enumerate(rates)}
        return _in_words(own)

    # Checkpoints.

    def save(self, path: str | os.PathLike[str], *, include_params: bool = True) -> None:
        """Saves parameters and state to a file of :func:`schuss.save`; every process calls it.

        Process 0 writes the file, and receives the others' parts one after the other: no process has the whole state.
        Any number of processes can load it, and so can the plain optimizer, with :func:`schuss.load`.

        Parameters
        ----------
        path : str or path
            The file; only process 0 uses it.
        include_params : bool, default True
            ``False`` saves the state alone.

        Raises
        ------
        OSError, TypeError, RuntimeError
            As for :func:`schuss.save`; the same error in all processes.
        """
        _files.save(self._comm, self._optimizer, self._backend, path, include_params)

    def load(self, path: str | os.PathLike[str], *, include_params: bool = True) -> None:
        """Restores parameters and state from a file of :meth:`save` or :func:`schuss.save`; every process calls it.

        Each process reads its own parts. The file may be from any number of processes.

        Parameters
        ----------
        path : str or path
            The file, which every process can read.
        include_params : bool, default True
            Restore the parameters too; ``False`` for files without them.

        Raises
        ------
        OSError, TypeError, ValueError, RuntimeError
            As for :func:`schuss.load`, if it fails in any process; the same error in all, and nothing has changed.
        """
        _files.load(self._comm, self._optimizer, path, include_params)

    # What the optimizer has.

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The groups, as of the optimizer; set hyperparameters to the same values in every process."""
        return self._optimizer.param_groups

    @property
    def lr(self) -> float:
        """The learning rate of the next step; set it to the same value in every process."""
        optimizer: Any = self._optimizer
        rate: float = optimizer.lr
        return rate

    @lr.setter
    def lr(self, value: Any) -> None:
        self._optimizer.lr = value

    @property
    def step_count(self) -> int:
        """Steps taken."""
        return self._optimizer.step_count

    @property
    def skipped_steps(self) -> int:
        """Steps skipped because a gradient was not finite."""
        return self._optimizer.skipped_steps

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the last step's sum or mean of gradients, before clipping; None unless it was measured."""
        return self._optimizer.grad_norm

    @property
    def max_grad_norm(self) -> float | None:
        """The bound on the global gradient norm, or None; set it to the same value in every process."""
        return self._optimizer.max_grad_norm

    @max_grad_norm.setter
    def max_grad_norm(self, value: float | None) -> None:
        self._optimizer.max_grad_norm = value

    @property
    def nonfinite(self) -> str:
        """What a step does about NaN and infinities in the sum of gradients."""
        return self._optimizer.nonfinite

    @nonfinite.setter
    def nonfinite(self, value: Any) -> None:
        self._optimizer.nonfinite = value

    @property
    def memory(self) -> dict[str, int]:
        """Bytes in this process besides parameters and gradients: its part of the state, of the sums, and buffers."""
        states = sum(array.nbytes for own in self._optimizer._states for array in own)
        return {"state": states, "gradients": self._shards.gradient_bytes, "buffers": self._buffers}

    def __getattr__(self, name: str) -> Any:
        hidden = name.startswith("_") or name == "grads"
        value: Any = None if hidden else getattr(self._optimizer, name)
        if name in _TOGETHER:
            return lambda *args: self._exchanged(lambda: value(*args))
        if hidden or (callable(value) and name not in _READING):
            hint = {"state_dict": "; use save", "load_state_dict": "; use load", "grads": "; pass gradients to step"}
            raise AttributeError(f"a sharded optimizer has no {name}{hint.get(name, '')}")
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # What this class does not have is an option of the optimizer, or a mistake that it explains.
        own = name.startswith("_") or hasattr(type(self), name)
        super().__setattr__(name, value) if own else setattr(self._optimizer, name, value)

    def __reduce__(self) -> Any:
        self._backend.check_picklable()

    def __repr__(self) -> str:
        own = self._backend.elements(self._optimizer._stepped)
        rank, ranks = self._comm.Get_rank(), self._comm.Get_size()
        return f"Sharded, process {rank} of {ranks}, {own:,} elements of its own, of {self._optimizer!r}"


def _checked(kind: Any, params: Any, count: Any, bucket: Any, ranks: int) -> list[tuple[str, np.ndarray]]:
    """The arrays of the parameters; raises unless the arguments are usable."""
    if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
        raise TypeError(f"the first argument is a class of schuss.OPTIMIZERS, got {trees.kind(kind)}")
    if not kind._shareable:
        raise TypeError(f"{kind.__name__} needs every array whole, so processes cannot share them")
    if not issubclass(kind, tuple(OPTIMIZERS.values())):
        raise TypeError(
            f"processes cannot share the arrays of {kind.__name__}, a wrapper; give the class that it wraps"
        )
    for name, value, least in (("microbatches", count, ranks), ("bucket_size", bucket, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    if checks.any_on_gpu(params):
        raise TypeError("processes share NumPy arrays only; params has arrays on a GPU")
    leaves = trees.flatten(params, "params")[1]
    return [(f"params{place}", leaf) for place, leaf in leaves if isinstance(leaf, np.ndarray)]


def _communicator(comm: Any) -> Any:
    MPI = mpi()
    if comm is None:
        return MPI.COMM_WORLD
    if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
        raise TypeError(f"comm must be a communicator of mpi4py that this process is in, got {trees.kind(comm)}")
    return comm


def _layout(array: np.ndarray) -> str:
    """What must be the same in all processes."""
    order = "C" if array.flags.c_contiguous else "F" if array.flags.f_contiguous else "no"
    return f"{array.dtype}{list(array.shape)} in {order} order{'' if array.flags.writeable else ', read-only'}"


def _scale(given: Any, average: Any, count: int) -> float:
    return grad_scale(given) * (count if flag("average", average) else 1)


def _in_words(values: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}
