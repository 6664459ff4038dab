"""`Sharded`: an optimizer whose state is shared by the processes of an MPI job. It knows no optimizer class by name."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from schuss import _schuss
from schuss._arrays import trees
from schuss._core import validate
from schuss._core.optimizer import Optimizer
from schuss.mpi import _arguments, _communicators, _construction, _exchange, _files, _sums
from schuss.mpi._attributes import Attributes
from schuss.mpi._backend import ShardedHost
from schuss.mpi._sums import Sum

T = TypeVar("T")


class Sharded(Attributes):
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
        One of ``schuss.OPTIMIZERS`` but `Newton`, `LBFGS`, `Muon`, `SOAP` and `Shampoo`.
    params : structure of arrays, or list of group dicts
        As for the class itself; the same structure in every process. Process 0 sends its values to the others, which
        keep them if an error comes after that, such as a lack of memory for the state.
    comm : mpi4py communicator, default MPI.COMM_WORLD
        The processes. Messages are sent on a duplicate, which later optimizers use again, and which is freed with it.
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
        if "_optimizer" in vars(self):
            raise TypeError(f"this {type(self).__name__} is made already; make a new one instead of calling __init__")
        self._comm = _communicators.take(_arguments.communicator(comm), self)
        rank, ranks = self._comm.Get_rank(), self._comm.Get_size()
        count = ranks if microbatches is None else microbatches
        _exchange.together(
            self._comm,
            lambda: _arguments.check(kind, params, options, count, bucket_size, ranks),
            lambda _: {"the optimizer": kind.__name__, "microbatches": count, "bucket_size": bucket_size},
        )
        count, bucket_size = int(count), int(bucket_size)  # NumPy's integers overflow
        self._optimizer = _construction.made(self._comm, kind, params, options, count, bucket_size)
        #: The wrapper's settings, such as Ranger's `k`, when the processes last compared them; steps do not send them.
        self._compared = self._wrapper_settings()
        self._several = microbatches is not None
        self._numbers = range(count * rank // ranks, count * (rank + 1) // ranks)
        #: The sums of this process's gradients of the next step, the shards that send them, and when.
        self._sums: tuple[_schuss.Shards | None, int, list[Sum]] = (None, 0, [])
        _exchange.set_threads(self._comm)

    # Steps.

    def step(
        self,
        local_grads: Any = None,
        *,
        average: bool = True,
        grad_scale: float = 1.0,
        zero_grads: bool = False,
        partial: bool = False,
    ) -> bool:
        """Takes a step with the sum or the mean of all gradients; every process calls it.

        Parameters
        ----------
        local_grads : structure of arrays
            This process's gradient, its last one if it has several; for `NAG`, the function that computes it or, with
            ``microbatches``, an iterable of all that this process has. Arrays whose gradient is None are left out; they
            must be the same in every process.
        average : bool, default True
            Divide the sum by the number of gradients that were added.
        grad_scale : float, default 1.0
            What gradients are divided by besides.
        zero_grads : bool, default False
            Set this process's gradients to zero after use.
        partial : bool, default False
            Whether dicts of gradients may lack keys; what is missing is as None.

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
            The sum has a NaN or an infinity and ``nonfinite="error"``; the place is the same in all, and nothing has
            changed.
        RuntimeError
            A message failed in the middle of the step; then parameters and state are not usable.
        """

        def take() -> bool:
            count = self._count if validate.flag("average", average) else 1
            step = functools.partial(
                self._optimizer.step, grad_scale=validate.grad_scale(grad_scale) * count, partial=partial
            )
            several = callable(local_grads) and self._several
            if len(self._numbers) == 1 and not several:
                return step(local_grads, zero_grads=zero_grads)
            zero = validate.flag("zero_grads", zero_grads)
            if several:
                if zero:
                    raise ValueError("zero_grads=True is for gradients that are passed themselves")
                return step(lambda: self._sum(self._all(local_grads(), partial)))
            accumulated = self._accumulated
            if _count(accumulated) + 1 < len(self._numbers):
                raise ValueError(
                    f"this process has accumulated {_count(accumulated)} of {len(self._numbers)} gradients; pass all "
                    "but the last to accumulate()"
                )
            sums = _sums.added(self._optimizer, accumulated, self._numbers[-1], local_grads, partial=partial)
            zeroed = []
            for i, _, array in self._leaves(local_grads, partial) if zero else ():
                if array is not None:
                    self._optimizer._stepped._gradient(i, array, False, zero)  # raises unless it can be zeroed
                    zeroed.append((array, 0.0))
            total = self._sum(sums)
            try:
                with _schuss.AfterStep(self._optimizer, _schuss.Changes(fills=zeroed, if_skipped=True)):
                    return step(total)
            except FloatingPointError:  # which comes after the exchange
                self._sums = (self._shards, self._shards.rounds, accumulated)
                raise

        def arguments() -> dict[str, Any]:
            given = [] if callable(local_grads) else self._leaves(local_grads, partial)
            absent = [place for _, place, array in given if array is None]
            return {"average": average, "grad_scale": grad_scale, "the arrays without gradients": absent}

        return self._exchanged(take, arguments)

    @property
    def microbatches(self) -> range:
        """The numbers of this process's gradients in a step."""
        return self._numbers

    def accumulate(self, local_grads: Any, *, partial: bool = False) -> None:
        """Adds one of this process's gradients of the next step; it is copied, and nothing is sent.

        With ``microbatches`` gradients a step, a process passes all of its own but the last to this method, in order,
        and the last to :meth:`step`. They are used up by a step that is taken or skipped, kept after an error, and
        discarded by :meth:`zero_grad` and :meth:`load`. An error here is this process's alone.

        Parameters
        ----------
        local_grads : structure of arrays
            In the structure of the parameters; None for the same arrays in all gradients of a step.
        partial : bool, default False
            Whether dicts may lack keys; what is missing is as None.

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
        sums, rounds = self._accumulated, self._shards.rounds
        if _count(sums) + 1 >= len(self._numbers):
            instead = "discard the others with zero_grad()"
            if not sums:
                instead = "make the optimizer with microbatches= the number of all"
            raise ValueError(
                f"this process has {len(self._numbers)} of the {self._count} gradients of a step; pass the last to "
                f"step(), or {instead}"
            )
        number = self._numbers[_count(sums)]
        sums = _sums.added(self._optimizer, sums, number, local_grads, partial=partial)
        self._sums = (self._shards, rounds, sums)

    def zero_grad(self) -> None:
        """Discards this process's accumulated gradients; nothing is sent. Call it in every process."""
        self._sums = (None, 0, [])

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Adds a group, as :meth:`schuss.Optimizer.add_param_group` does; every process calls it, between steps.

        Process 0 sends the values of its arrays to the others.

        Parameters
        ----------
        group : dict
            ``{"params": <structure of arrays>, "lr": ..., ...}``; the same structure and options in every process.

        Raises
        ------
        TypeError, ValueError
            Wrong in one process, different among them, or there are accumulated gradients; the same error in all, and
            nothing has changed.

        Examples
        --------
        >>> import numpy as np, schuss.mpi
        >>> opt = schuss.mpi.Sharded(schuss.SGD, [np.ones(3)], lr=0.1)
        >>> opt.add_param_group({"params": [np.ones(2)], "lr": 0.01})
        >>> opt.step([[np.ones(3)], [np.ones(2)]])
        True
        """
        _construction.add(self._comm, self._optimizer, self._backend, group, self._refuse_accumulated)

    def _refuse_accumulated(self, call: str) -> None:
        if self._accumulated:
            raise ValueError(
                f"gradients of a step have been accumulated; {call} after the step, or discard them with zero_grad()"
            )

    @property
    def _backend(self) -> ShardedHost:
        backend: Any = self._optimizer._stepped._backend
        assert isinstance(backend, ShardedHost)
        return backend

    @property
    def _shards(self) -> _schuss.Shards:
        return self._backend.shards

    @property
    def _count(self) -> int:
        """Gradients that a step adds."""
        return self._backend.microbatches

    @property
    def _accumulated(self) -> list[Sum]:
        """The sums for the next step; the last step used those before it, even if an interrupt came after it."""
        shards, rounds, sums = self._sums
        return sums if shards is self._shards and rounds == self._shards.rounds else []

    def _sum(self, sums: list[Sum]) -> Any:
        """The last of this process's sums as a structure; the earlier ones are left to the shards."""
        self._shards.begin([one.memory for one in sums[:-1]])
        return sums[-1].structure(self._optimizer)

    def _all(self, gradients: Any, partial: bool = False) -> list[Sum]:
        return _sums.all_added(self._optimizer, self._numbers, gradients, partial)

    def _leaves(self, grads: Any, partial: bool) -> Iterator[tuple[int, str, Any]]:
        return trees.leaves(self._optimizer._root(), grads, "grads", "params", partial=partial)

    def _exchanged(self, function: Callable[[], T], arguments: Callable[[], dict[str, Any]] = dict) -> T:
        """The result of a function that exchanges a step."""
        describe = lambda: {**_arguments.description(self._optimizer), **arguments()}  # noqa: E731
        if (settings := self._wrapper_settings()) != self._compared:
            _exchange.uninterrupted(lambda _: self._compare(settings, describe))
        return _exchange.step(self._shards, self._comm, function, describe)

    def _compare(self, settings: list[Any], describe: Callable[[], dict[str, Any]]) -> None:
        _exchange.compare(self._shards, self._comm, describe)
        self._compared = settings

    def _wrapper_settings(self) -> list[Any]:
        """What acts in Python, after the step itself."""
        optimizer = self._optimizer
        known = optimizer._stepped._settings
        return [optimizer._option(name) for name in optimizer._settings if name not in known]

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
        OSError, TypeError, ValueError, RuntimeError
            As for :func:`schuss.save`, or there are accumulated gradients, which no file has; the same error in all
            processes.
        """
        own = self._comm, self._optimizer, self._backend
        _exchange.uninterrupted(
            lambda stopped: _files.save(*own, path, include_params, self._refuse_accumulated, stopped)
        )

    def load(self, path: str | os.PathLike[str], *, include_params: bool = True) -> None:
        """Restores parameters and state from a file of :meth:`save` or :func:`schuss.save`; every process calls it.

        Each process reads its own parts. The file may be from any number of processes. Accumulated gradients are
        discarded.

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
        own = self._comm, self._optimizer, self._backend
        _exchange.uninterrupted(lambda _: _files.load(*own, path, include_params, self.zero_grad))

    # What the optimizer has.

    @property
    def memory(self) -> dict[str, int]:
        """Bytes in this process besides parameters and gradients: its part of the state, of the sums, and buffers."""
        states = sum(array.nbytes for own in self._optimizer._states for array in own)
        return {"state": states, "gradients": self._shards.gradient_bytes, "buffers": self._backend.buffers}

    def _run_together(self, method: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return self._exchanged(lambda: method(*self._estimates(args), **named))

    def _estimates(self, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arguments of a method of all parameters: with several microbatches, an estimate for each."""
        return (self._sum(self._all(given)),) if given and self._several else given

    def __reduce__(self) -> Any:
        self._backend.check_picklable()

    def __repr__(self) -> str:
        own = self._backend.elements(self._optimizer._stepped)
        rank, ranks = self._comm.Get_rank(), self._comm.Get_size()
        return f"Sharded, process {rank} of {ranks}, {own:,} elements of its own, of {self._optimizer!r}"


def _count(sums: list[Sum]) -> int:
    """The number of gradients in sums."""
    return sum(one.length for one in sums)
