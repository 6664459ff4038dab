"""What the benchmarks share: the cases (from the package's own registry), optimizers ready to step, fair timing."""

import functools
import importlib.util
import itertools
import os
import statistics
import time
from pathlib import Path

import numpy as np

import schuss

from . import floor, rivals

SIZES = [1_024, 16_384, 131_072, 1_048_576, 8_388_608, 33_554_432]
IN_CACHE = [n for n in SIZES if n <= 1_048_576]
PAST_CACHE = [n for n in SIZES if n > 1_048_576]
DTYPES = {"float32": np.float32, "float64": np.float64, "float16": np.float16}
if importlib.util.find_spec("ml_dtypes"):
    DTYPES["bfloat16"] = importlib.import_module("ml_dtypes").bfloat16
THREADS = schuss.get_num_threads()

# Every optimizer with its defaults, whatever the registry holds; then options that bring another state or equation.
CASES = {name: (name, {}) for name in schuss.OPTIMIZERS}
CASES |= {
    "SGD, momentum": ("SGD", {"momentum": 0.9}),
    "RMSprop, centered, momentum": ("RMSprop", {"centered": True, "momentum": 0.9}),
    "Adam, amsgrad": ("Adam", {"amsgrad": True}),
}

ADAMW = {
    "lr": rivals.LR,
    "betas": (rivals.BETA1, rivals.BETA2),
    "eps": rivals.EPS,
    "weight_decay": rivals.WEIGHT_DECAY,
}
LAYOUTS = {
    "1 x 1,000,000": [1_000_000],
    "1000 x 1000": [1_000] * 1_000,
    "10,000 x 100": [100] * 10_000,
}


def process_environment(**extra):
    """The environment of a child process that imports ``benchmarks`` too."""
    here = str(Path(__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, inherited] if inherited else [here]), **extra}


def leaves(structure):
    """The arrays of a nested structure, in order."""
    if isinstance(structure, np.ndarray):
        return [structure]
    children = structure.values() if hasattr(structure, "values") else structure
    return list(itertools.chain.from_iterable(map(leaves, children)))


class Job:
    """An optimizer of the package with parameters and gradients; the first step has been taken."""

    def __init__(self, case, shapes, dtype="float32", **options):
        name, defaults = CASES[case]
        params = rivals.random_arrays(shapes, DTYPES[dtype])
        grads = rivals.random_arrays(shapes, DTYPES[dtype], 1)
        # One array is passed as it is, several as a list: what a person would do.
        self.params, self.grads = (params, grads) if len(shapes) > 1 else (params[0], grads[0])
        self.optimizer = schuss.OPTIMIZERS[name](self.params, **{**defaults, **options})
        self.step = functools.partial(self.optimizer.step, self.grads)
        self.step()

    def states(self):
        return [a for tree in self.optimizer.state_dict()["state"][0].values() for a in leaves(tree)]

    def floor(self, threads=THREADS):
        """The traffic floor over the very arrays of this job: same pages, same luck."""
        return floor.make_floor(self.grads, self.params, self.states(), threads)

    def bytes(self):
        return floor.traffic_bytes(self.grads, [self.params, *self.states()])


@functools.lru_cache(maxsize=1)
def hot(case, shapes, dtype="float32", **options):
    """The job of a time_ benchmark: made at its first call, kept for the others.

    Not in ``setup``: asv then calls a benchmark once for each setup, and what it measures is a cold step.
    """
    return Job(case, [shapes] if isinstance(shapes, int) else shapes, dtype, **options)


class Timed:
    """How long asv's time_ benchmarks take: the first call, which makes the job, falls into the warm-up."""

    warmup_time = 0.1
    sample_time = 0.01
    repeat = 5
    rounds = 2
    timeout = 120


def per_call(step, seconds):
    """How many calls fill that time, at least one."""
    step()
    begin, calls = time.perf_counter(), 1
    step()
    while (taken := time.perf_counter() - begin) < seconds / 4:
        calls *= 2
        begin = time.perf_counter()
        for _ in range(calls):
            step()
    return max(1, round(seconds / (taken / calls)))


def interleave(steps, rounds=11, seconds=0.01, rest=0.005, work=None):
    """Seconds a call of every step, one figure a round, the steps taking turns.

    steps: {name: callable}. Each turn makes enough calls to fill ``seconds``. Between turns the process rests, so that
    threads which spin after their work (OpenMP) do not sit on a core while the next one is measured, and the first
    call of a turn, which may wake a pool or fetch arrays, is not counted. The order rotates from round to round.
    work: called before every single step, not counted; back to back otherwise.
    """
    calls = {name: per_call(step, seconds) for name, step in steps.items()}
    taken = {name: [] for name in steps}
    names = list(steps)
    clock = time.perf_counter
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            step = steps[name]
            time.sleep(rest)
            if work:
                each = []
                for _ in range(calls[name]):
                    work()
                    begin = clock()
                    step()
                    each.append(clock() - begin)
                taken[name].append(statistics.median(each))
            else:
                step()
                repeat = itertools.repeat(None, calls[name])
                begin = clock()
                for _ in repeat:
                    step()
                taken[name].append((clock() - begin) / calls[name])
    return taken


def ratio(taken, name, base):
    """The median over the rounds of name's time over base's. A neighbour slows both of one round, so this is steadier
    than the ratio of the medians."""
    return statistics.median(a / b for a, b in zip(taken[name], taken[base]))


def measure_ratio(step, base, **options):
    return ratio(interleave({"step": step, "base": base}, **options), "step", "base")


def numpy_work(milliseconds=1.0):
    """A callable that keeps NumPy busy for that long on one core, as the rest of a training loop would."""
    x = np.linspace(0.0, 1.0, 4096)
    out = np.empty_like(x)

    def work():
        end = time.perf_counter() + milliseconds / 1e3
        while time.perf_counter() < end:
            np.tanh(x, out=out)

    return work
