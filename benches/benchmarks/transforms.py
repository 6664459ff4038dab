"""Steps whose gradients are transformed, against the same steps without that."""

import numpy as np

import schuss
from schuss import transforms

from .jobs import Job
from .timing import HOT, SUITE, measure_ratio

version = SUITE
CASES = {
    "none": [],
    "clip": [transforms.clip(1.0)],
    "zero_nans, clip": [transforms.zero_nans(), transforms.clip(1.0)],
    "agc": [transforms.agc()],
    "clip_by_global_norm": [transforms.clip_by_global_norm(1.0)],
    "accumulate": [transforms.accumulate(4)],
}
LAYOUTS = {"one of 16": [16], "100 of 16": [16] * 100, "one of 65,536": [65_536], "one of 8,388,608": [8_388_608]}


class Transformed:
    """Our time divided by that of AdamW alone."""

    params = [list(CASES), list(LAYOUTS)]
    param_names = ["transforms", "arrays"]
    timeout = 120

    def track_ratio_to_step(self, case, layout):
        job = Job("AdamW", LAYOUTS[layout])
        again = [np.ones_like(p) for p in job.params] if isinstance(job.params, list) else np.ones_like(job.params)
        transformed = schuss.Transformed(schuss.AdamW(again), CASES[case])
        return measure_ratio(lambda: transformed.step(job.grads), job.step, **HOT)


Transformed.track_ratio_to_step.unit = "times the step alone"
