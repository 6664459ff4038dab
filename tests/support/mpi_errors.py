"""Cases of `schuss.mpi` in which a call is wrong, or fails, in one process: all raise the same error, nobody waits."""

import copy
import os
import resource

import numpy as np
from mpi4py import MPI
from mpi_job import COMM, RANK, RANKS, SMALL, arrays, raised, same, tree

import schuss
from schuss.mpi import Sharded


def errors(folder):
    """An error in one process is the same error in all, and nothing has changed."""
    last = RANK == RANKS - 1
    params, like = arrays(SMALL, 1), arrays(SMALL, 1)
    here = {name: x for name, x in arrays(SMALL, 5 + RANK).items()}

    def made(kind=schuss.AdamW, **options):
        return Sharded(kind, params, lr=0.01, **options)

    raised(TypeError, "Newton", lambda: made(schuss.Newton))
    for kind in (schuss.LBFGS, schuss.Muon, schuss.SOAP, schuss.Shampoo):
        raised(TypeError, f"{kind.__name__} needs every array whole", lambda kind=kind: made(kind))
    raised(TypeError, "cannot share the arrays of Lookahead, a wrapper", lambda: made(schuss.Lookahead))
    raised(TypeError, "the slow weights of Ranger are whole", lambda: made(schuss.Ranger, master_weights=True))
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
    raised(TypeError, "this Sharded is made already", lambda: own.__init__(schuss.SGD, params, lr=0.5))
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
    assert own.clip_factor is None and own.metrics() == {"step": 0, "skipped_steps": 0, "lr": 0.01}
    raised(AttributeError, "AdamW has no attribute 'rate'; did you mean opt.lr", lambda: setattr(own, "rate", 1.0))
    for wrap in (schuss.Lookahead, schuss.SAM, schuss.EMA, lambda opt: schuss.Transformed(opt, [])):
        raised(TypeError, "got Sharded; it has its own save() and load(), and no wrapper", lambda wrap=wrap: wrap(own))
    raised(TypeError, "got Sharded; it has its own save()", lambda: schuss.save(os.path.join(folder, "state"), own))
    text = "got an instance of AdamW; pass the class schuss.AdamW, then its arguments"
    raised(TypeError, text, lambda: Sharded(schuss.AdamW(arrays(SMALL, 1)), arrays(SMALL, 1)))
    raised(TypeError, "grads is a function, not a structure like params", lambda: own.step(lambda: here))
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


def settings(folder):
    """Settings of a wrapper, which act after the step, are compared before it; any number of processes may set them."""
    last, path = RANK == RANKS - 1, os.path.join(folder, "state")
    alone, shared = arrays(SMALL, 1), arrays(SMALL, 1)
    grads = arrays(SMALL, 5)
    plain = schuss.Ranger(alone, lr=0.01, k=2)
    own = Sharded(schuss.Ranger, shared, lr=0.01, k=2)
    assert own.step(grads) and own.step(grads)
    own.save(path)
    for setting, value, other in (("k", 2, 3), ("alpha", 0.5, 0.25), ("pullback", "none", "reset")):
        before = {name: x.copy() for name, x in shared.items()}
        setattr(own, setting, other if last else value)
        text = f"the processes differ in {setting}: {value} in process 0, {other} in process {RANKS - 1}"
        for _ in range(2):
            raised(ValueError, text, lambda: own.step(grads))
        raised(ValueError, "grads", lambda: own.step({} if RANK == 0 else grads))
        assert same(shared, before) and own.step_count == 2
        setattr(own, setting, value)
    own.k, own.alpha = 3, 0.25
    raised(ValueError, "grads", lambda: own.step({} if RANK == 0 else grads))
    raised(ValueError, "differ in grad_scale", lambda: own.step(grads, grad_scale=2 if last else 1))
    assert own.step(grads)
    own.load(path)
    assert own.k == 2 and own.step(grads)
    for _ in range(3):
        plain.step(grads)
    raised(AttributeError, "a sharded optimizer has no optimizer; use it itself", lambda: own.optimizer)
    # The mean of equal gradients has their bits but for RANKS.
    assert all(np.allclose(shared[name], alone[name], rtol=1e-5, atol=1e-7) for name in shared)


def accumulated(folder):
    """Accumulated gradients are used up by a step, kept by an error, and discarded by `load` and `zero_grad`."""
    path, last = os.path.join(folder, "state"), RANK == RANKS - 1
    params = [np.zeros(4), np.zeros(3)]
    grads = [np.ones(4), np.ones(3)]

    many = Sharded(schuss.SGD, [np.zeros(3)], lr=1.0, microbatches=np.int8(100), bucket_size=np.int8(100))
    assert many.microbatches == range(100 * RANK // RANKS, 100 * (RANK + 1) // RANKS)

    own = Sharded(schuss.SGD, params, lr=1.0, microbatches=2 * RANKS, nonfinite="error")
    own.save(path)
    own.accumulate([5 * x for x in grads])
    for call, function in (
        ("save", lambda: own.save(path)),
        ("add the group", lambda: own.add_param_group({"params": np.ones(2)})),
    ):
        raised(ValueError, f"{call} after the step, or discard them with zero_grad()", function)
    raised(ValueError, "or discard the others with zero_grad()", lambda: own.accumulate(grads))
    raised(FileNotFoundError, "", lambda: own.load(f"{path}none"))
    raised(FloatingPointError, "nothing was updated", lambda: own.step([np.full(4, np.nan if last else 1.0), grads[1]]))
    assert own.step(grads) and np.all(params[0] == -3)
    own.accumulate([np.full(4, 100.0), grads[1]])
    own.load(path)
    raised(ValueError, "this process has accumulated 0 of 2 gradients", lambda: own.step(grads))
    own.accumulate(grads)
    assert own.step(grads) and np.all(params[0] == -1)

    # No step can use these.
    for kind, text, wrong, step in (
        (ValueError, "differ in the arrays without gradients", [grads[0], None], [grads[0], None]),
        (ValueError, "discard those with zero_grad()", [grads[0], None], grads),
        (FloatingPointError, "nothing was updated", [np.full(4, np.nan), grads[1]], grads),
    ):
        own.accumulate(wrong if last else grads)
        for _ in range(2):
            raised(kind, text, lambda step=step: own.step(step if last else grads))
        own.zero_grad()
        own.accumulate(grads)
        assert own.step(grads)
    assert np.all(params[0] == -4) and np.all(params[1] == -4)


class Silent(Exception):
    """An error without a text."""

    def __str__(self):
        raise ValueError("no text")


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

    fails_late(path)

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


class Fragile:
    """A schedule whose state does not load in the last process, but in its copies, which are tried first."""

    fails, state = True, "new"

    def __call__(self, step):
        return 0.01

    def state_dict(self):
        return {"state": self.state}

    def load_state_dict(self, state):
        self.state = state["state"]
        if self.fails and state["state"] == "saved" and RANK == RANKS - 1:
            raise MemoryError("for the schedule")

    def __deepcopy__(self, memo):
        copied = Fragile()
        copied.fails = False
        return copied


def fails_late(path):
    """What fails in one process after all have found nothing wrong: it is taken back in the others."""
    last = RANK == RANKS - 1
    rate, grads = Fragile(), [np.full(3000, 0.5, np.float32)]
    params = [np.ones(3000, np.float32)]
    own = Sharded(schuss.Adam, params, lr=rate)
    own.step(grads)
    rate.state = "saved"
    own.save(path)
    rate.state = "new"
    own.step(grads)
    before = params[0].copy()
    raised(MemoryError, "for the schedule (in process 2)", lambda: own.load(path))
    assert (rate.state, own.step_count) == ("new", 2) and np.array_equal(params[0], before)
    rate.fails = False
    own.load(path)
    assert (rate.state, own.step_count) == ("saved", 1) and not np.array_equal(params[0], before)

    inner, calls = own._optimizer, []
    group_added = inner._group_added

    def second(*given):
        calls.append(given)
        if last and len(calls) == 2:
            raise MemoryError("for the group")
        return group_added(*given)

    new = np.full(2000, float(RANK), np.float32)
    kept = {name: copy.copy(getattr(own._backend, name)) for name in ("_loads", "_parts", "_stored", "buffers")}
    inner._group_added = second
    raised(MemoryError, "for the group (in process 2)", lambda: own.add_param_group({"params": [new]}))
    assert len(calls) == 2 and len(own.param_groups) == 1 and np.all(new == RANK)
    assert all(getattr(own._backend, name) == value for name, value in kept.items())
    assert own.step(grads)
    own.add_param_group({"params": [new]})
    assert own.step([grads, [np.full(2000, 0.5, np.float32)]])
    assert np.all(new == new[0]) and len(set(COMM.allgather(new.tobytes()))) == 1 and new[0] < 0
    path += "grown"
    own.save(path)
    own.load(path)
