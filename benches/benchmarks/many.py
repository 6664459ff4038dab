"""Many arrays in one step, against one array with as many elements and against torch; and small calls."""

import functools
from math import prod

import schuss

from . import libraries
from .jobs import ADAMW, THREADS, Job, hot
from .models import LAYOUTS
from .timing import HOT, Timed, interleave, measure_ratio

LISTS = [layout for layout, shapes in LAYOUTS.items() if len(shapes) > 1]


class Many(Timed):
    params = [list(LAYOUTS)]
    param_names = ["layout"]

    def prepared(self, layout):
        return hot("AdamW", tuple(LAYOUTS[layout])).step

    def time_step(self, *_params):
        self.step()


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
    """The cost of a call, with arrays of 16 elements. `track_step` avoids asv's loop, which adds 0.2 us."""

    params = [[1, 10, 100, 1000]]
    param_names = ["arrays of 16"]

    def prepared(self, count):
        return hot("AdamW", (16,) * count).step

    def time_step(self, *_params):
        self.step()

    def track_step(self, count):
        return min(interleave({"step": Job("AdamW", [16] * count).step})["step"])


Call.track_step.unit = "s"


@functools.lru_cache(maxsize=1)
def around(call):
    """What is called beside or around a step, with 100 arrays of 16."""
    job = Job("AdamW", [16] * 100)
    kinds = {"EMA": schuss.EMA, "Lookahead": schuss.Lookahead, "SAM": schuss.SAM}
    if call in kinds:
        grads = (lambda: job.grads) if call == "SAM" else job.grads
        return functools.partial(kinds[call](job.optimizer).step, grads)
    if call == "lr":
        return functools.partial(setattr, job.optimizer, "lr", 1e-3)
    return functools.partial(getattr(schuss, call), job.grads, *([1.0] if call == "clip_grad_norm_" else []))


class Around(Timed):
    params = [["EMA", "Lookahead", "SAM", "clip_grad_norm_", "global_norm", "lr"]]
    param_names = ["call"]

    def prepared(self, call):
        return around(call)

    def time_step(self, *_params):
        self.step()
