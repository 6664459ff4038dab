"""Ratios, the figures that travel between machines: both sides interleaved in one process, median, lower is better.

A ratio is nan where its yardstick is not installed or has no such case.
"""

import functools
import importlib.util

import schuss

from . import floor, rivals
from .common import ADAMW, CASES, DTYPES, LAYOUTS, PAST_CACHE, SIZES, THREADS, Job, Timed, measure_ratio

NAN = float("nan")


class ToFloor:
    """Time over that of a loop with the same loads and stores; 1.0 is the floor, 1 / 0.93 = 1.075 the target."""

    params = [list(CASES), PAST_CACHE]
    param_names = ["optimizer", "elements"]
    unit = "times the floor"
    timeout = 120

    def track_ratio_to_floor(self, case, n, dtype="float32"):
        if dtype not in DTYPES:
            return NAN
        job = Job(case, [n], dtype)
        try:
            base = job.floor()
        except (floor.FloorUnavailable, ValueError):  # no cargo here, or a state that is not elementwise
            return NAN
        return measure_ratio(job.step, base, rounds=9, seconds=0.03, rest=0)


class ToFloorBfloat16(ToFloor):
    """Parameters and gradients of two bytes, state of four."""

    params = [list(CASES), PAST_CACHE[:1]]

    def track_ratio_to_floor(self, case, n):
        return super().track_ratio_to_floor(case, n, "bfloat16")


class ToTorch:
    """Time over that of torch.optim with fused=True and as many threads; 0.04 is 25 times as fast."""

    fused = [name for name in ("SGD", "Adagrad", "Adam", "AdamW") if name in schuss.OPTIMIZERS]
    params = [fused, SIZES[:-1]]
    param_names = ["optimizer", "elements"]
    unit = "times torch fused"
    timeout = 120

    def track_ratio_to_torch(self, name, n):
        if importlib.util.find_spec("torch") is None:
            return NAN
        rival, _ = rivals.torch_step([n], threads=THREADS, name=name)
        return measure_ratio(Job(name, [n], lr=rivals.LR).step, rival)


class ManyToTorch:
    params = [list(LAYOUTS)]
    param_names = ["layout"]
    unit = "times torch fused"
    timeout = 120

    def track_ratio_to_torch(self, layout):
        if "torch fused" not in rivals.RIVALS:
            return NAN
        rival, _ = rivals.torch_step(LAYOUTS[layout], threads=THREADS)
        return measure_ratio(Job("AdamW", LAYOUTS[layout], **ADAMW).step, rival)


class ToOthers:
    """AdamW over the same loop compiled by numba, with and without threads, and over the NumPy expression."""

    names = ["numba", "numba parallel", "numba parallel fastmath", "NumPy"]
    params = [names, SIZES[:-1]]
    param_names = ["rival", "elements"]
    unit = "times the rival"
    timeout = 120

    def track_ratio(self, name, n):
        if name not in rivals.RIVALS:
            return NAN
        rival, _ = rivals.RIVALS[name]([n], threads=THREADS)
        return measure_ratio(Job("AdamW", [n], **ADAMW).step, rival)


@functools.lru_cache(maxsize=1)
def hot_rival(name, n):
    return rivals.RIVALS[name]([n], threads=THREADS)[0]


@functools.lru_cache(maxsize=1)
def hot_floor(states, n):
    arrays = [rivals.random_arrays([n], seed=k)[0] for k in range(2 + states)]
    return floor.make_floor(arrays[0], arrays[1], arrays[2:], THREADS)


class RivalTimes(Timed):
    """The rivals' own times, so that a jump in a ratio can be laid at the right door."""

    params = [list(rivals.RIVALS), [1_024, 1_048_576]]
    param_names = ["rival", "elements"]

    def time_step(self, name, n):
        hot_rival(name, n)()


class FloorTimes(Timed):
    params = [[0, 1, 2, 3], PAST_CACHE]
    param_names = ["states", "elements"]

    def time_floor(self, states, n):
        hot_floor(states, n)()
