"""Cases of `schuss.mpi` in which one process is interrupted, has no memory, or ends: nobody waits for it."""

import contextlib
import copy
import ctypes
import itertools
import os
import signal
import sys

import numpy as np
from interrupts import check_all_or_nothing
from mpi4py import MPI
from mpi_job import COMM, RANK, RANKS, raised

import schuss
from schuss.mpi import Sharded, _files


class Stop(BaseException):
    """An interrupt."""


def interrupt():
    """An interrupt before the exchange is an error in the others."""
    here = {}

    def rate(step):
        if here["interrupted"]:
            raise KeyboardInterrupt
        return 0.1

    params, grads = np.ones(5000, np.float32), np.ones(5000, np.float32)
    here["interrupted"] = False
    own = Sharded(schuss.SGD, params, lr=rate)
    here["interrupted"] = RANK == 0
    try:
        own.step(grads)
    except KeyboardInterrupt:
        assert RANK == 0
    except RuntimeError as error:
        assert RANK > 0 and "KeyboardInterrupt" in str(error)
    assert np.all(params == 1)
    here["interrupted"] = False
    assert own.step(grads) and np.all(params == np.float32(0.9))

    def stop(*_):
        raise Stop

    # At any instruction, also between accumulating and the step: it is before or after what it interrupts.
    random = np.random.default_rng(RANK)
    own = Sharded(schuss.SGD, params, lr=0.1, microbatches=3 * RANKS)
    signal.signal(signal.SIGALRM, stop)
    while own.step_count < 300:
        try:
            if RANK == 0:
                signal.setitimer(signal.ITIMER_REAL, 1e-3 * random.random())
            while sum(one.length for one in own._accumulated) < 2:
                own.accumulate(grads)
            own.step(grads)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Stop:
            assert RANK == 0
        except RuntimeError as error:
            assert "Stop" in str(error), error
    with contextlib.suppress(Stop):
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(set(COMM.allgather(params.tobytes()))) == 1


def interrupted_zeroing():
    """Gradients are zeroed with the step that uses them, also with one that is skipped: in a process alone."""
    shape, count = (5,), 300  # so many that zeroing them takes time

    def make(kind, value):
        params, grads = ([np.full(shape, one, np.float32) for _ in range(count)] for one in (1, value))
        own = Sharded(kind, params, comm=MPI.COMM_SELF, microbatches=2, lr=0.1, nonfinite="skip")
        own.accumulate([np.ones(shape, np.float32)] * count)
        return own, params, grads

    def step(made):
        own, _, grads = made
        if not own._accumulated:
            own.accumulate(grads)
        own.step(grads)

    def image(made):
        own, params, grads = made
        return copy.deepcopy([*params, *grads]), f"{own.step_count} {own.skipped_steps} {len(own._accumulated)}"

    for kind, value in itertools.product((schuss.SGD, schuss.Ranger), (0.5, np.nan)):
        with contextlib.redirect_stdout(sys.stderr):
            check_all_or_nothing(
                lambda kind=kind, value=value: make(kind, value),
                lambda made: made[0].step(made[2], zero_grads=True),
                step,
                image,
                f"{kind.__name__} {value}",
            )
    params = [np.ones(3)]
    own = Sharded(schuss.SGD, params, comm=MPI.COMM_SELF, microbatches=2, lr=0.1)
    own.accumulate(params)
    raised(ValueError, "shares memory with a parameter or a state", lambda: own.step(params, zero_grads=True))
    assert own.step(params) and own.step_count == 1


def interrupted_files(folder):
    """A signal in one process, at any instruction of a save or a load: nobody waits, and the file stays whole."""

    def stop(*_):
        raise Stop

    path, random = os.path.join(folder, "state"), np.random.default_rng(RANK)
    params = [np.ones(size, np.float32) for size in (5000, 7, 20_000)]
    own = Sharded(schuss.Adam, params, lr=0.1)
    own.step([np.ones_like(param) for param in params])
    own.save(path)
    signal.signal(signal.SIGALRM, stop)
    for name, victim in itertools.product(("save", "load"), range(RANKS)):
        begun, work = [], getattr(_files, name)
        setattr(_files, name, lambda *given, begun=begun, work=work: begun.append(1) or work(*given))
        while len(begun) < 30:
            try:
                if victim == RANK:
                    signal.setitimer(signal.ITIMER_REAL, 1e-6 + 0.03 * random.random())
                getattr(own, name)(path)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Stop:
                assert victim == RANK
            except OSError as error:
                assert "the save was interrupted" in str(error), error
        with contextlib.suppress(Stop):
            signal.setitimer(signal.ITIMER_REAL, 0)
        setattr(_files, name, work)
        COMM.Barrier()
        assert os.listdir(folder) == ["state"]
    own.load(path)
    assert own.step_count == 1


def memory():
    """Each allocation of a step as large as a list of all arrays fails, one after the other, in one process.

    Most arrays are empty, so that messages are small: an MPI's own memory for them is not ours.
    """
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    last, count = RANKS - 1, 4000
    for kind, options in (
        (schuss.AdamW, {}),
        (schuss.AdamW, {"max_grad_norm": 1.0}),
        (schuss.LAMB, {}),
        (schuss.Adafactor, {}),
    ):
        sizes = [0 if i % 40 else 6 for i in range(count)]
        params, grads = ([np.full(size, value, np.float32) for size in sizes] for value in (1, 0.5))
        grads[40] = None
        own = Sharded(kind, params, lr=0.1, **options)
        nth, failed = 0, True
        while failed:
            before, error = [p.copy() for p in params], None
            if last == RANK:
                library.fail(nth, 8 * count)
            try:
                own.step(grads)
            except MemoryError as raised:
                error = raised
            failed = COMM.bcast(library.has_failed(), root=last)
            library.fail(-1, 0)
            everyone = COMM.allgather(error is None)
            assert len(set(everyone)) == 1, everyone
            changed = [i for i, p in enumerate(params) if not np.array_equal(p, before[i])]
            assert changed == ([] if error else [i for i in range(0, count, 40) if i != 40])
            nth += 1
        assert nth > 1 and own.step_count <= nth


def killed():
    """The job does not end by itself."""
    own = Sharded(schuss.SGD, np.ones(5000, np.float32), lr=0.1)
    own.step(np.ones(5000, np.float32))
    if RANK == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    own.step(np.ones(5000, np.float32))
    while True:
        own.step(np.ones(5000, np.float32))


def raising():
    """An exception in one process's own code ends the job."""
    own = Sharded(schuss.SGD, np.ones(5000, np.float32), lr=0.1)
    if RANK == 1:
        raise ValueError("in the program")
    own.step(np.ones(5000, np.float32))
