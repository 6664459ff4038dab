"""Many arrays in one step, against one array with as many elements and against torch; and small calls."""

import functools
import itertools
import operator
from math import prod

import schuss

from . import libraries
from .jobs import ADAMW, THREADS, Job
from .models import LAYOUTS
from .timing import HOT, SUITE, Timed, measure_ratio

version = SUITE
LISTS = [layout for layout, shapes in LAYOUTS.items() if len(shapes) > 1]


class Many(Timed):
    params = [list(LAYOUTS)]
    param_names = ["layout"]

    def prepared(self, layout):
        return Job("AdamW", LAYOUTS[layout]).step


class ManyRatios:
    """Our time divided by that for one flat array, where 1.0 means no overhead, and divided by torch's."""

    params = [LISTS]
    param_names = ["layout"]
    timeout = 120

    def track_ratio_to_flat(self, layout):
        shapes = LAYOUTS[layout]
        return measure_ratio(Job("AdamW", shapes).step, Job("AdamW", [sum(map(prod, shapes))]).step, **HOT)

    def track_ratio_to_torch(self, layout):
        if "torch fused" not in libraries.LIBRARIES:
            return float("nan")
        rival, _ = libraries.torch_step(LAYOUTS[layout], threads=THREADS)
        return measure_ratio(Job("AdamW", LAYOUTS[layout], **ADAMW).step, rival, rounds=7)


ManyRatios.track_ratio_to_flat.unit = "times the flat step"
ManyRatios.track_ratio_to_torch.unit = "times torch fused"


class Call(Timed):
    """The cost of a call, with arrays of 16 elements."""

    params = [[1, 10, 100, 1000]]
    param_names = ["arrays of 16"]

    def prepared(self, count):
        return Job("AdamW", [16] * count).step


def clipping(job):
    """clip_grad_norm_ with a bound that falls a little from call to call, so that each call has something to clip."""
    bounds = itertools.accumulate(itertools.repeat(0.99999), operator.mul)
    return lambda: schuss.clip_grad_norm_(job.grads, next(bounds))


# What is called around or beside a step.
AROUND = {
    "EMA(AdamW).step": lambda job: functools.partial(schuss.EMA(job.optimizer).step, job.grads),
    "Lookahead(AdamW).step": lambda job: functools.partial(schuss.Lookahead(job.optimizer).step, job.grads),
    "SAM(AdamW).step": lambda job: functools.partial(schuss.SAM(job.optimizer).step, lambda: job.grads),
    "Transformed(AdamW, [clip]).step": lambda job: functools.partial(
        schuss.Transformed(job.optimizer, [schuss.transforms.clip(1.0)]).step, job.grads
    ),
    "clip_grad_norm_": clipping,
    "global_norm": lambda job: functools.partial(schuss.global_norm, job.grads),
    "opt.lr = x": lambda job: functools.partial(setattr, job.optimizer, "lr", 1e-3),
}


def around(call):
    """One of these calls, with AdamW over 100 arrays of 16."""
    return AROUND[call](Job("AdamW", [16] * 100))


class Around(Timed):
    params = [list(AROUND)]
    param_names = ["call"]

    def prepared(self, call):
        return around(call)
