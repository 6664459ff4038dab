"""One step of every optimizer in the registry, over sizes, dtypes, threads, CPU levels, and options of the step."""

import functools
import subprocess
import sys

import schuss

from .jobs import CASES, DTYPES, IN_CACHE, PAST_CACHE, THREADS, one, process_environment
from .timing import SUITE, Timed

version = SUITE


class Step(Timed):
    """float32, one array."""

    params = [list(CASES), [1_024, *IN_CACHE]]
    param_names = ["optimizer", "elements"]

    def prepared(self, case, n):
        return one(case, n).step


class StepLarge(Step):
    """Arrays larger than the caches, where memory bandwidth decides."""

    params = [list(CASES), PAST_CACHE]


class StepDtype(Timed):
    """Parameters and gradients of the other dtypes (16-bit ones keep their state in float32)."""

    params = [list(CASES), [d for d in DTYPES if d != "float32"], [16_384, 1_048_576]]
    param_names = ["optimizer", "dtype", "elements"]

    def prepared(self, case, dtype, n):
        return one(case, n, dtype).step


class StepThreads(Timed):
    """Numbers of threads, around the size from which a second thread is faster."""

    params = [list(CASES), sorted({1, THREADS}), [65_536, 131_072, 262_144, 1_048_576]]
    param_names = ["optimizer", "threads", "elements"]

    def prepared(self, case, threads, n):
        schuss.set_num_threads(threads)
        return one(case, n).step


class StepOptions(Timed):
    """Options of a step, to compare with the step without options."""

    options = {
        "plain": ({}, {}),
        "clip": ({"max_grad_norm": 1.0}, {}),
        "skip nonfinite": ({"nonfinite": "skip"}, {}),
        "unscale": ({}, {"grad_scale": 128.0}),
        "clip, unscale, skip": ({"max_grad_norm": 1.0, "nonfinite": "skip"}, {"grad_scale": 128.0}),
    }
    params = [list(options), [16_384, 1_048_576]]
    param_names = ["options", "elements"]

    def prepared(self, option, n):
        constructor, call = self.options[option]
        job = one("AdamW", n, **constructor)
        return functools.partial(job.optimizer.step, job.grads, **call)


class StepLevel:
    """Each CPU level on one thread. The level is chosen at import, so each is measured in a new process."""

    params = [list(CASES), schuss.cpu_levels(), [16_384]]
    param_names = ["optimizer", "level", "elements"]
    unit = "seconds"
    code = """
import sys
from benchmarks.jobs import Job, shape
from benchmarks.timing import interleave
print(min(interleave({"step": Job(sys.argv[1], [shape(sys.argv[1], int(sys.argv[2]))]).step})["step"]))
"""

    def track_step(self, case, level, n):
        env = process_environment(SCHUSS_CPU=level, SCHUSS_NUM_THREADS="1")
        command = [sys.executable, "-c", self.code, case, str(n)]
        return float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
