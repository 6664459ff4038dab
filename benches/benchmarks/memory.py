"""Memory of a step: the peak of a process, and the memory beyond parameters, gradients and state.

Growth is read from /proc in a new process, because Python does not see Rust's allocations. As a program, ``python -m
benchmarks.memory CASE`` prints the bytes.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

import schuss

from .jobs import CASES, DTYPES, Job, leaves, process_environment, shape
from .timing import SUITE

version = SUITE
MEGA = 1 << 20
# name: (shapes, parameter dtype, gradient dtype and layout, constructor options)
GROWTH = {
    "one array": ([8 * MEGA], "float32", "same", {}),
    "1000 arrays": ([8 * 1024] * 1000, "float32", "same", {}),
    "clip, skip nonfinite": ([8 * MEGA], "float32", "same", {"max_grad_norm": 1.0, "nonfinite": "skip"}),
    "bfloat16": ([8 * MEGA], "bfloat16", "same", {}),
    "float64 gradients": ([8 * MEGA], "float32", "float64", {}),
    "strided gradients": ([8 * MEGA], "float32", "strided", {}),
    "transposed gradients": ([(2048, 4096)], "float32", "transposed", {}),
}
GROWTH = {name: case for name, case in GROWTH.items() if case[1] in DTYPES}


def _status(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {key} here")


def step_growth(case, name="AdamW", steps=3):
    """Bytes by which the process grows at most during the first steps; nan where /proc does not show it."""
    shapes, dtype, layout, options = GROWTH[case]
    params = [np.ones(shape, DTYPES[dtype]) for shape in shapes]
    if layout == "strided":
        grads = [np.ones((*np.atleast_1d(p.shape), 2), p.dtype)[..., 0] for p in params]
    elif layout == "transposed":
        grads = [np.ones(p.shape[::-1], p.dtype).T for p in params]
    else:
        grads = [np.ones(p.shape, p.dtype if layout == "same" else layout) for p in params]
    # A step over small arrays first, so that the thread pool and lazily loaded code do not count.
    warm = [np.ones(MEGA, np.float32)]
    schuss.OPTIMIZERS[name](warm, **options).step([np.ones_like(warm[0])])
    optimizer = schuss.OPTIMIZERS[name](params, **options)
    for tree in optimizer.state_dict()["state"]:
        for a in leaves(tree):
            a[...] = 0  # zeroed memory is only mapped when it is first written
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = _status("VmRSS")
        for _ in range(steps):
            optimizer.step(grads)
        return max(0, _status("VmHWM") - before)
    except OSError:
        return float("nan")


def measure_growth(case, name="AdamW"):
    """`step_growth` in a new process."""
    command = [sys.executable, "-m", "benchmarks.memory", case, name]
    done = subprocess.run(command, env=process_environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout)


class Growth:
    """Bytes allocated beyond the state, for parameters of 8 M elements."""

    params = [list(GROWTH)]
    param_names = ["case"]
    unit = "bytes"

    def track_step_growth(self, case):
        return measure_growth(case)


class Peak:
    """The whole process, as asv counts it: parameters, gradients, state, interpreter."""

    params = [list(CASES), [1 * MEGA, 8 * MEGA]]
    param_names = ["optimizer", "elements"]

    def setup(self, case, n):
        self.job = Job(case, [shape(case, n)])

    def peakmem_step(self, case, n):
        self.job.step()


if __name__ == "__main__":
    print(step_growth(*sys.argv[1:]))
