"""Ratios of our time to a reference's, which carry over between machines; lower is better.

Both alternate in one process, and the median counts. A ratio is nan if the reference is not installed or has no such
case. Arrays larger than the caches are compared with a loop of the same traffic, smaller ones with other libraries'
steps, back to back and with other work before each step.
"""

import functools
import importlib.util

import schuss

from . import floor, libraries
from .jobs import ADAMW, CASES, DTYPES, IN_CACHE, PAST_CACHE, SIZES, THREADS, Job, one
from .timing import SUITE, Timed, matrix_product, measure_ratio, numpy_work

version = SUITE
NAN = float("nan")
# What runs before each step, to be made when it is needed.
WORKS = {"after 1 ms of work": numpy_work, "after a matrix product": matrix_product}
REGIMES = ["back to back", *WORKS]


def in_regime(regime, step, base):
    """The ratio with steps back to back, or with other work between them as in a training loop."""
    if regime not in WORKS:
        return measure_ratio(step, base)
    return measure_ratio(step, base, seconds=0.004, work=WORKS[regime]())


class ToFloor:
    """Our time divided by that of a loop with the same loads and stores; the target is 1 / 0.95 = 1.053."""

    params = [list(CASES), PAST_CACHE]
    param_names = ["optimizer", "elements"]
    unit = "times the floor"
    timeout = 300

    def track_ratio_to_floor(self, case, n, dtype="float32"):
        if dtype not in DTYPES or case not in CASES:
            return NAN
        job = one(case, n, dtype)
        try:
            base = job.floor()
        except floor.FloorUnavailable:
            return NAN
        return measure_ratio(job.cycle, base, rounds=7, seconds=0.03, rest=0)


class ToFloorBfloat16(ToFloor):
    """bfloat16 parameters and gradients, float32 state."""

    params = [list(CASES), PAST_CACHE[:1]]

    def track_ratio_to_floor(self, case, n):
        return super().track_ratio_to_floor(case, n, "bfloat16")


class ToTorch:
    """Our time divided by that of torch.optim with fused=True and as many threads; 0.04 is 25 times as fast."""

    fused = [name for name in ("SGD", "Adagrad", "Adam", "AdamW") if name in schuss.OPTIMIZERS]
    params = [fused, SIZES[:-2]]
    param_names = ["optimizer", "elements"]
    unit = "times torch fused"
    timeout = 120

    def track_ratio_to_torch(self, name, n):
        if importlib.util.find_spec("torch") is None:
            return NAN
        rival, _ = libraries.torch_step([n], threads=THREADS, name=name)
        return measure_ratio(Job(name, [n], lr=libraries.LR).step, rival)


class ToOthers:
    """Our AdamW's time divided by that of other libraries."""

    params = [list(libraries.LIBRARIES), REGIMES, IN_CACHE]
    param_names = ["library", "regime", "elements"]
    unit = "times the library"
    timeout = 120

    def track_ratio(self, name, regime, n):
        if name not in libraries.LIBRARIES:
            return NAN
        rival, _ = libraries.LIBRARIES[name]([n], threads=THREADS)
        return in_regime(regime, Job("AdamW", [n], **ADAMW).step, rival)


class ToOneThread:
    """Time on all threads divided by time on one; above 1, more threads are slower."""

    params = [REGIMES, IN_CACHE]
    param_names = ["regime", "elements"]
    unit = "times one thread"

    def track_ratio_to_one_thread(self, regime, n):
        step = Job("AdamW", [n]).step

        def with_threads(threads):
            schuss.set_num_threads(threads)
            step()

        every, one = functools.partial(with_threads, THREADS), functools.partial(with_threads, 1)
        return in_regime(regime, every, one)


class LibraryTimes(Timed):
    """Times of the other libraries, to see which side changed when a ratio changes."""

    params = [list(libraries.LIBRARIES), [1_024, 1_048_576]]
    param_names = ["library", "elements"]

    def prepared(self, name, n):
        return libraries.LIBRARIES[name]([n], threads=THREADS)[0]


class FloorTimes(Timed):
    params = [["SGD", "AdamW", "LARS", "LAMB"], PAST_CACHE[:2]]
    param_names = ["optimizer", "elements"]

    def prepared(self, case, n):
        return one(case, n).floor()
