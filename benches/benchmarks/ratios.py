"""Ratios, which carry over between machines: both sides interleaved in one process, median, lower is better.

A ratio is nan if its reference is not installed or has no such case. Sizes past the caches are compared with a loop of
the same traffic, sizes in cache with other libraries' steps, back to back and with a millisecond of other work before
each step.
"""

import functools
import importlib.util

import schuss

from . import floor, rivals
from .jobs import ADAMW, CASES, DTYPES, IN_CACHE, PAST_CACHE, SIZES, THREADS, Job, shape
from .timing import Timed, measure_ratio, numpy_work

NAN = float("nan")
REGIMES = ["back to back", "after 1 ms of work"]


def in_regime(regime, step, base):
    """The ratio with nothing between the steps, or as a training loop has it."""
    if regime == REGIMES[0]:
        return measure_ratio(step, base)
    return measure_ratio(step, base, seconds=0.004, work=numpy_work())


class ToFloor:
    """Time over that of a loop with the same loads and stores; 1.0 is the floor, 1 / 0.95 = 1.053 the target."""

    params = [list(CASES), PAST_CACHE]
    param_names = ["optimizer", "elements"]
    unit = "times the floor"
    timeout = 300

    def track_ratio_to_floor(self, case, n, dtype="float32"):
        if dtype not in DTYPES or case not in CASES:
            return NAN
        job = Job(case, [shape(case, n)], dtype)
        try:
            base = job.floor()
        except floor.FloorUnavailable:
            return NAN
        return measure_ratio(job.cycle, base, rounds=7, seconds=0.03, rest=0)


class ToFloorBfloat16(ToFloor):
    """Parameters and gradients of two bytes, state of four."""

    params = [list(CASES), PAST_CACHE[:1]]

    def track_ratio_to_floor(self, case, n):
        return super().track_ratio_to_floor(case, n, "bfloat16")


class ToTorch:
    """Time over that of torch.optim with fused=True and as many threads; 0.04 is 25 times as fast."""

    fused = [name for name in ("SGD", "Adagrad", "Adam", "AdamW") if name in schuss.OPTIMIZERS]
    params = [fused, SIZES[:-2]]
    param_names = ["optimizer", "elements"]
    unit = "times torch fused"
    timeout = 120

    def track_ratio_to_torch(self, name, n):
        if importlib.util.find_spec("torch") is None:
            return NAN
        rival, _ = rivals.torch_step([n], threads=THREADS, name=name)
        return measure_ratio(Job(name, [n], lr=rivals.LR).step, rival)


class ToOthers:
    """AdamW over the others' steps, in both regimes."""

    params = [list(rivals.RIVALS), REGIMES, IN_CACHE]
    param_names = ["rival", "regime", "elements"]
    unit = "times the rival"
    timeout = 120

    def track_ratio(self, name, regime, n):
        if name not in rivals.RIVALS:
            return NAN
        rival, _ = rivals.RIVALS[name]([n], threads=THREADS)
        return in_regime(regime, Job("AdamW", [n], **ADAMW).step, rival)


class ToOneThread:
    """All threads over one thread: above 1, helpers cost more than they bring."""

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


@functools.lru_cache(maxsize=1)
def hot_rival(name, n):
    return rivals.RIVALS[name]([n], threads=THREADS)[0]


@functools.lru_cache(maxsize=1)
def hot_floor(case, n):
    return Job(case, [shape(case, n)]).floor()


class RivalTimes(Timed):
    """The other libraries' own times, to find out which side caused a jump in a ratio."""

    params = [list(rivals.RIVALS), [1_024, 1_048_576]]
    param_names = ["rival", "elements"]

    def time_step(self, name, n):
        hot_rival(name, n)()


class FloorTimes(Timed):
    params = [["SGD", "AdamW", "LARS", "LAMB"], PAST_CACHE[:2]]
    param_names = ["optimizer", "elements"]

    def time_floor(self, case, n):
        hot_floor(case, n)()
