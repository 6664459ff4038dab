"""What tests of `schuss.mpi` run in every process of a job: ``python -m mpi4py mpi_program.py CASE [FILE]``.

Each case asserts; one that passes prints "passed" from process 0.
"""

import contextlib
import copy
import ctypes
import doctest
import filecmp
import functools
import os
import resource
import signal
import sys
import tracemalloc

import ml_dtypes
import numpy as np
from cases import CASES
from mpi4py import MPI

import schuss
import schuss.mpi._model
import schuss.mpi._sharded
from schuss.mpi import Machine, Sharded, predict

COMM = MPI.COMM_WORLD
RANK, RANKS = COMM.Get_rank(), COMM.Get_size()
#: Gradients that a step adds: no multiple of any number of processes.
COUNT = 7
SHAPES = {"one": ((130, 512), "f4"), "two": ((5000,), "f4"), "three": ((3, 40, 60), "f8"), "none": ((0,), "f4")}
#: For rows of the conformance table.
ROW = {"one": ((40, 70), "f4"), "two": ((1500,), "f4"), "three": ((2, 20, 60), "f4")}
SMALL = {"one": ((70, 40), "f4"), "two": ((3000,), "f4"), "three": ((3, 20, 30), "f8"), "none": ((0,), "f4")}
OPTIMIZERS = [name for name, kind in schuss.OPTIMIZERS.items() if kind._shareable]


def arrays(shapes, seed, dtype=None):
    """Arrays of random numbers, one of them in Fortran order."""
    random = np.random.default_rng(seed)
    made = {name: random.standard_normal(shape).astype(dtype or kind) for name, (shape, kind) in shapes.items()}
    made["three"] = np.asfortranarray(made["three"])
    return made


def tree(gradients):
    """The sum of gradients, in the tree that `Sharded` documents."""
    if len(gradients) == 1:
        return gradients[0]
    left = 1
    while 2 * left < len(gradients):
        left *= 2
    one, other = tree(gradients[:left]), tree(gradients[left:])
    return {name: one[name] + other[name] for name in one}


@functools.cache
def gradients(small, step, dtype):
    """In the type that updates are computed in, which is also that of their sum."""
    dtype = dtype and np.float32
    return [arrays(SMALL if small else SHAPES, 100 * step + number, dtype) for number in range(COUNT)]


def take(given, own):
    """A step with this process's gradients."""
    for number in own.microbatches[:-1]:
        own.accumulate(given[number])
    return own.step(given[own.microbatches[-1]])


def same(one, other):
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


@contextlib.contextmanager
def processes(count):
    """A communicator of the first processes; None in the others."""
    comm = COMM.Split(0 if count > RANK else MPI.UNDEFINED)
    yield None if comm == MPI.COMM_NULL else comm


def closure(params, number):
    """The gradient that NAG asks for."""
    return {name: (0.1 * x + number).astype(x.dtype) for name, x in params.items()}


def check_bits(name, comm, small, options, dtype=None, steps=2):
    kind, shapes = schuss.OPTIMIZERS[name], SMALL if small else SHAPES
    options = {"lr": 0.01, **options}
    alone, shared = arrays(shapes, 1, dtype), arrays(shapes, 1, dtype)
    if RANK > 0:
        shared["two"][...] = 0  # process 0 sends its values
    plain = kind(alone, **options)
    own = Sharded(kind, shared, comm=comm, bucket_size=4096, microbatches=COUNT, **options)
    for step in range(steps):
        if name == "NAG":
            here = [functools.partial(closure, number=number) for number in range(COUNT)]
            plain.step(lambda here=here: tree([one(alone) for one in here]), grad_scale=float(COUNT))
            own.step(lambda here=here: (here[number](shared) for number in own.microbatches))
            continue
        given = gradients(small, step, dtype)
        if name.startswith("Sophia") and step == 1:
            estimates = gradients(small, 8, dtype)
            plain.update_hessian({n: x / x.dtype.type(COUNT) for n, x in tree(estimates).items()})
            own.update_hessian(*(estimates[number] for number in own.microbatches))
        assert plain.step(tree(given), grad_scale=float(COUNT)) and take(given, own)
        assert own.grad_norm == plain.grad_norm
    if hasattr(plain, "eval"):
        plain.eval()
        own.eval()
    assert same(alone, shared), f"{name} {options} on {comm.size} processes"
    return plain, own, alone, shared


def bits():
    """Every optimizer on three processes, some on one, two and four."""
    with processes(3) as comm:
        if comm:
            for name in OPTIMIZERS:
                small = name not in ("Adafactor", "AdamMini", "AdamP", "Ranger", "SGDP")  # these see matrices
                check_bits(name, comm, small, {"max_grad_norm": 1.0, "nonfinite": "skip"} if name != "SGD" else {})
    for count in (1, 2, 4):
        with processes(count) as comm:
            if comm:
                for name in ("AdamW", "LAMB", "Prodigy"):
                    check_bits(name, comm, True, {})
    with processes(2) as comm:
        if comm:
            check_bits("Adafactor", comm, False, {"max_grad_norm": 0.5})


def check_row(case, comm):
    """A row of the conformance table; in the third step an array has no gradient."""
    kind = schuss.OPTIMIZERS[case.optimizer]
    alone, shared = arrays(ROW, 1), arrays(ROW, 1)
    plain, own = kind(alone, **case.kwargs), Sharded(kind, shared, comm=comm, bucket_size=4096, **case.kwargs)
    for step in range(4):
        if case.optimizer == "NAG":
            here = [functools.partial(closure, number=number) for number in range(comm.size)]
            plain.step(lambda here=here: tree([one(alone) for one in here]), grad_scale=float(comm.size))
            own.step(lambda here=here: here[comm.rank](shared))
            continue
        given = [arrays(ROW, 100 * step + number) for number in range(comm.size)]
        left_out = {"two": None} if step == 2 else {}
        taken = plain.step(tree(given) | left_out, grad_scale=float(comm.size))
        assert own.step(given[comm.rank] | left_out) == taken
    if hasattr(plain, "eval"):
        plain.eval()
        own.eval()
    assert same(alone, shared), f"{case} on {comm.size} processes"


def table(part, parts):
    """Some rows of the conformance table, one of `parts` of them, on three processes."""
    rows = [case for case in CASES if case.optimizer in OPTIMIZERS]
    for case in rows[int(part) :: int(parts)]:
        check_row(case, COMM)


def formats():
    """Small states and master weights, whose rounding depends on the place of an element in its array."""
    for options, dtype in (
        ({"state_dtype": "int8"}, "f4"),
        ({"state_dtype": "bfloat16", "master_weights": True}, ml_dtypes.bfloat16),
        ({"state_dtype": "bfloat16", "max_grad_norm": 1.0}, None),
    ):
        check_bits("AdamW", COMM, True, options, dtype)


def files(folder):
    """Files go from any number of processes to any other, and to and from the plain optimizer."""
    path = os.path.join(folder, "state")
    for name, options in (("AdamW", {}), ("Adafactor", {}), ("Ranger", {"state_dtype": "int8"}), ("Prodigy", {})):
        dtype = "f4" if options else None
        with processes(3) as comm:
            if comm:
                plain, own, _, _ = check_bits(name, comm, True, options, dtype)
                own.save(path)
                if RANK == 0:
                    schuss.save(f"{path}.plain", plain)
                    assert filecmp.cmp(path, f"{path}.plain", shallow=False), name
        COMM.Barrier()
        with processes(2) as comm:
            if comm:
                shared, again = arrays(SMALL, 2, dtype), arrays(SMALL, 3, dtype)
                own = Sharded(schuss.OPTIMIZERS[name], shared, comm=comm, microbatches=COUNT, lr=0.01, **options)
                own.load(path)
                plain = schuss.OPTIMIZERS[name](again, lr=0.01, **options)
                schuss.load(path, plain)
                given = gradients(True, 5, dtype)
                assert plain.step(tree(given), grad_scale=float(COUNT)) and take(given, own)
                assert same(again, shared) and own.step_count == 3, name
        COMM.Barrier()


def raised(kind, text, function):
    """Asserts that all processes raise the same error."""
    try:
        function()
    except Exception as error:
        found = (type(error), str(error))
    else:
        found = None
    everyone = COMM.allgather(found)
    assert all(one == everyone[0] for one in everyone), everyone
    assert found is not None and found[0] is kind and text in found[1], found


def errors(folder):
    """An error in one process is the same error in all, and nothing has changed."""
    last = RANK == RANKS - 1
    params, like = arrays(SMALL, 1), arrays(SMALL, 1)
    here = {name: x for name, x in arrays(SMALL, 5 + RANK).items()}

    def made(kind=schuss.AdamW, **options):
        return Sharded(kind, params, lr=0.01, **options)

    raised(TypeError, "Newton", lambda: made(schuss.Newton))
    for kind in (schuss.LBFGS, schuss.Muon, schuss.SOAP):
        raised(TypeError, f"{kind.__name__} needs every array whole", lambda kind=kind: made(kind))
    raised(TypeError, "cannot share the arrays of Lookahead, a wrapper", lambda: made(schuss.Lookahead))
    raised(TypeError, "a class of schuss.OPTIMIZERS, got str", lambda: made("AdamW"))
    raised(TypeError, "comm must be a communicator", lambda: made(comm=RANKS))
    raised(TypeError, "comm must be a communicator", lambda: made(comm=MPI.COMM_NULL))
    raised(
        ValueError,
        "differ in the optimizer: AdamW in process 0, Lion in",
        lambda: made(schuss.Lion if last else schuss.AdamW),
    )
    raised(ValueError, "differ in param_groups[0]['weight_decay']", lambda: made(weight_decay=0.1 if last else 0.0))
    raised(ValueError, "params['one']", lambda: Sharded(schuss.SGD, {"one": np.ones(5 if last else 4)}, lr=0.1))
    raised(ValueError, "microbatches", lambda: made(microbatches=1 if last else RANKS))
    raised(ValueError, "(in process", lambda: made(betas=(2.0, 0.9) if last else (0.9, 0.9)))

    own = made(nonfinite="error", max_grad_norm=1.0)
    wrong = {**here, "one": here["one"][1:]} if last else here
    raised(ValueError, "grads['one']", lambda: own.step(wrong))
    raised(ValueError, "grads", lambda: own.step({**here, "more": here["one"]} if last else here))
    raised(ValueError, "grad_scale", lambda: own.step(here, grad_scale=-1 if last else 1))
    raised(ValueError, "differ in grad_scale", lambda: own.step(here, grad_scale=2 if last else 1))
    own.lr = 0.02 if last else 0.01
    raised(ValueError, "differ in param_groups[0]['lr']: 0.01 in process 0, 0.02 in process", lambda: own.step(here))
    own.lr = 0.01
    bad = {**here, "two": here["two"].copy()}
    bad["two"][1500] = np.nan if last else 1
    raised(FloatingPointError, "grads['two'] has a NaN or infinity, first at (1500,)", lambda: own.step(bad))
    part = {**here, "two": None}
    text = "differ in the arrays without gradients: [] in process 0, [\"grads['two']\"] in process"
    raised(ValueError, text, lambda: own.step(part if last else here))
    raised(FileNotFoundError, "", lambda: own.load(os.path.join(folder, "none")))
    raised(FileNotFoundError, "", lambda: own.save(os.path.join(folder, "none", "state")))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    if RANK == 0:  # a full disk, in the middle of a tensor
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, unlimited[1]))
    raised(OSError, "cannot be written", lambda: own.save(os.path.join(folder, "state")))
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert os.listdir(folder) == []
    raised(AttributeError, "use save", lambda: own.state_dict())
    raised(AttributeError, "has no zero_grad", lambda: own.zero_grad())
    assert own.clip_factor is None and own.metrics() == {"step": 0, "skipped_steps": 0, "lr": 0.01}
    raised(AttributeError, "AdamW has no attribute 'rate'; did you mean opt.lr", lambda: setattr(own, "rate", 1.0))
    for wrap in (schuss.Lookahead, schuss.SAM, schuss.EMA, lambda opt: schuss.Transformed(opt, [])):
        raised(TypeError, "got Sharded; it has its own save() and load(), and no wrapper", lambda wrap=wrap: wrap(own))
    raised(TypeError, "got Sharded; it has its own save()", lambda: schuss.save(os.path.join(folder, "state"), own))
    raised(TypeError, "cannot be copied or pickled", lambda: copy.deepcopy(own))
    raised(ValueError, "pass the last to step()", lambda: own.accumulate(here))
    assert same(params, like) and own.step_count == 0
    own.nonfinite = "skip"
    assert not own.step(bad, zero_grads=True) and own.skipped_steps == 1 and not bad["two"].any()
    assert own.step(part) and own.step_count == 1 and not same(params, like)
    assert np.array_equal(params["two"], like["two"])
    plain = schuss.AdamW(like, lr=0.01, nonfinite="skip", max_grad_norm=1.0)
    for grads in (part, here):
        everyone = COMM.allgather(grads)
        if grads is here:
            own.step(grads)
        total = tree([{name: x for name, x in one.items() if x is not None} for one in everyone])
        plain.step({name: total.get(name) for name in grads}, grad_scale=float(RANKS))
    assert same(params, like)

    nag, before = made(schuss.NAG), arrays(SMALL, 1)
    for name, x in params.items():
        before[name][...] = x

    def closure():
        if last:
            raise ZeroDivisionError("in the loss")
        return here

    raised(ZeroDivisionError, "in the loss", lambda: nag.step(closure))
    assert same(params, before)
    assert nag.step(lambda: here)


class Silent(Exception):
    """An error without a text."""

    def __str__(self):
        raise ValueError("no text")


class Stop(BaseException):
    """An interrupt."""


def hostile(folder):
    """What fails in one process only, and where an error might be lost: all raise the same, and nobody waits."""
    last = RANK == RANKS - 1
    here, path = arrays(SMALL, 5 + RANK), os.path.join(folder, "state")

    def made(params=None, kind=schuss.AdamW, **options):
        return Sharded(kind, arrays(SMALL, 1) if params is None else params, **{"lr": 0.01, **options})

    def fails(error):
        class Kind(schuss.AdamW):
            def __init__(self, *args, **options):
                if last:
                    raise error
                super().__init__(*args, **options)

        return Kind

    raised(
        ValueError, "differ in microbatches: 3 in process 0, 6 in process", lambda: made(microbatches=6 if last else 3)
    )
    raised(RuntimeError, "Silent: an error without a text (in process 2)", lambda: made(kind=fails(Silent())))
    raised(KeyError, "key (in process 2)", lambda: made(kind=fails(KeyError("key"))))
    for error in (UnicodeDecodeError("utf-8", b"x", 0, 1, "why"), StopIteration("over")):
        raised(RuntimeError, f"{type(error).__name__}: {error} (in process 2)", lambda e=error: made(kind=fails(e)))
    raised(
        ValueError,
        "differ in param_groups[0]['lr']: 0.1 in process 0, 0.2 in process 2",
        lambda: made(lr=lambda step: 0.2 if last else 0.1),
    )
    raised(
        ValueError,
        "differ in params['more']: nothing in process 0",
        lambda: made(arrays(SMALL, 1) | ({"more": np.ones(1)} if last else {})),
    )

    params = arrays(SMALL, RANK)
    raised(ValueError, "lr must be", lambda: made(params, lr=-1))
    assert same(params, arrays(SMALL, RANK))  # process 0 has not sent its values yet
    given = [{"params": (np.full(2, RANK + i, np.float64) for i in range(2))}]
    own = made(given, kind=schuss.SGD, bucket_size=np.int64(10))
    assert own.param_groups[0]["params"][1].tolist() == [1, 1] and own.step([[np.ones(2)] * 2])

    calls = []

    def rate(step):
        calls.append(step)
        if len(calls) > limit:
            raise ValueError("no rate")
        return 0.01

    limit = 10**9
    own = made(lr=rate)
    # Those that agree on the step still have to say in what they differ.
    calls, limit = [], 1 if RANK == 0 else 10**9
    raised(ValueError, "no rate (in process 0)", lambda: own.step(here, grad_scale=2 if last else 1))
    limit = 10**9
    assert own.step(here)

    own = made()
    for name in ("one", "other"):
        own.step(here)
        own.save(path + name)
    again = made(arrays(SMALL, 9))
    before = copy.deepcopy(again._optimizer._params)
    raised(ValueError, "differ in the file: one with the hash", lambda: again.load(path + ("other" if last else "one")))
    raised(
        ValueError,
        "differ in include_params: True in process 0, False in",
        lambda: again.load(path + "one", include_params=not last),
    )
    raised(
        TypeError, "include_params must be True or False", lambda: again.save(path, include_params=2 if last else True)
    )
    assert again.step_count == 0 and all(map(np.array_equal, before, again._optimizer._params))
    # The same step and options, but another run.
    other = made(arrays(SMALL, 9))
    other.step(here)
    other.save(path + "other")
    raised(ValueError, "differ in the file", lambda: again.load(path + ("other" if last else "one")))
    again.load(path + "one")
    assert again.step_count == 1

    own = made(microbatches=2 * RANKS)
    own.accumulate({**here, "two": None})
    raised(ValueError, "grads['two'] is not None, but is in the gradients that it is added to", lambda: own.step(here))
    raised(ValueError, "accumulated; add the group after the step", lambda: own.add_param_group({"params": np.ones(2)}))
    assert own.step({name: x for name, x in here.items() if name != "two"}, partial=True)
    nag = made(kind=schuss.NAG, microbatches=2 * RANKS)
    raised(TypeError, "a list of gradients, one for each number, not a dict", lambda: nag.step(lambda: here))
    raised(
        ValueError,
        "this process has 2 gradients, the microbatches range(4, 6), got 3",
        lambda: nag.step(lambda: [here] * (3 if last else 2)),
    )
    assert nag.step(lambda: [here] * 2)


def groups():
    """Groups that are added later have the bits of one process; an error adds none."""
    alone, shared = arrays(SMALL, 1), arrays(SMALL, 1)
    plain = schuss.AdamW(alone, lr=0.01, max_grad_norm=1.0)
    own = Sharded(schuss.AdamW, shared, lr=0.01, max_grad_norm=1.0, bucket_size=4096)
    raised(ValueError, "differ in", lambda: own.add_param_group({"params": np.ones(3), "lr": float(RANK)}))
    raised(
        ValueError, "differ in param_groups[1]['params']", lambda: own.add_param_group({"params": np.ones(3 + RANK)})
    )
    raised(TypeError, "has unknown 'rate'", lambda: own.add_param_group({"params": np.ones(3), "rate": 1}))
    raised(
        ValueError, "memory", lambda: own.add_param_group({"params": shared["two"] if RANK else np.ones(3000, "f4")})
    )
    for step in range(4):
        if step == 2:
            more, ours = arrays(ROW, 7), arrays(ROW, 7 + RANK)
            plain.add_param_group({"params": more, "lr": 0.1})
            own.add_param_group({"params": ours, "lr": 0.1})
        given = [arrays(SMALL, 100 * step + number) for number in range(RANKS)]
        extra = [arrays(ROW, 200 * step + number) for number in range(RANKS)]
        both = (lambda one, other: one) if step < 2 else (lambda one, other: [one, other])
        plain.step(both(tree(given), tree(extra)), grad_scale=float(RANKS))
        own.step(both(given[RANK], extra[RANK]))
    assert same(alone, shared) and same(more, ours)
    state = own.memory["state"]
    assert abs(RANKS * state / sum(x.nbytes for own in plain._states for x in own) - 1) < 0.5


def many():
    """Optimizers that are gone leave no communicator: there are 2,048 of these."""
    for _ in range(1100):
        Sharded(schuss.SGD, np.ones(3), comm=MPI.COMM_SELF, lr=0.1).step(np.ones(3))
        with contextlib.suppress(ValueError):
            Sharded(schuss.SGD, np.ones(3), comm=MPI.COMM_SELF, lr=-1)


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
    """The same for an exception in one process's own code."""
    own = Sharded(schuss.SGD, np.ones(5000, np.float32), lr=0.1)
    if RANK == 1:
        raise ValueError("in the program")
    own.step(np.ones(5000, np.float32))


def model():
    """The model's bytes are those of the messages, and of memory."""
    n, bucket = 1 << 20, 1 << 16
    own = Sharded(schuss.AdamW, np.ones(n, np.float32), lr=0.1, bucket_size=bucket)
    predicted = predict(Machine(1e-6, 1e9, 1e9), RANKS, n, bucket_size=bucket)
    buckets = own._shards.bytes
    sent = sum(sum(one[0] for rank, one in enumerate(parts) if rank != RANK) for parts in buckets)
    sent += sum((RANKS - 1) * parts[RANK][1] for parts in buckets)
    memory = own.memory
    assert abs(sent / predicted.traffic - 1) < 0.01, (sent, predicted)
    assert abs(memory["state"] / predicted.state - 1) < 0.01
    assert abs((sum(memory.values()) + 8 * n) / predicted.memory - 1) < 0.05, (memory, predicted)


class Recorded(MPI.Intracomm):
    """A communicator that notes which messages have been started."""

    started: list

    def Ialltoallv(self, *message):
        self.started.append("gradients")
        return super().Ialltoallv(*message)

    def Iallgatherv(self, *message):
        self.started.append("parameters")
        return super().Iallgatherv(*message)


def overlap():
    """Each bucket is updated, after which its parameters are sent, while the gradients of the next are on their way."""
    Recorded.started = started = []
    own = Sharded(schuss.AdamW, [np.ones(8192, np.float32)], comm=Recorded(COMM), bucket_size=2048)
    own.step([np.full(8192, 0.5, np.float32)])
    assert started == ["gradients", *["gradients", "parameters"] * 3, "parameters"], started


def save_memory(folder):
    """No process gathers the state for a file, not even the one that writes it."""
    params = [np.ones(1 << 18, np.float32) for _ in range(16)]
    own = Sharded(schuss.AdamW, params)
    own.step([np.full(1 << 18, 0.5, np.float32)] * 16)
    path = os.path.join(folder, "file")
    tracemalloc.start()
    own.save(path, include_params=False)
    peak = tracemalloc.get_traced_memory()[1]
    COMM.Barrier()
    assert peak < os.path.getsize(path) / 8, peak


def doctests():
    for module in (schuss.mpi._sharded, schuss.mpi._model):
        found = doctest.testmod(module)
        assert found.attempted and not found.failed
    assert "schuss.mpi" in sys.modules


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    COMM.Barrier()
    if RANK == 0:
        print("passed")
