"""Whole training steps that update array by array, beside those that update at the end, and their peak memory.

A network of eight layers of 1024 x 1024 float32 and a batch of 64: in NumPy, and in PyTorch where it is installed.
``python -m benchmarks.backward LIBRARY WAY`` prints the bytes that a step needs at its peak beyond what it finds.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from .jobs import THREADS
from .timing import SUITE, Timed

version = SUITE
WIDTH, LAYERS, BATCH = 1024, 8, 64
LIBRARIES = ["NumPy", *(["PyTorch"] if importlib.util.find_spec("torch") else [])]
WAYS = ["step", "stepping"]


def made(library, way):
    """A training step with AdamW."""
    return (with_numpy if library == "NumPy" else with_torch)(way == "stepping")


def with_numpy(by_array):
    import schuss

    rng = np.random.default_rng(0)
    ws = [rng.standard_normal((WIDTH, WIDTH), dtype=np.float32) / np.sqrt(WIDTH) for _ in range(LAYERS)]
    x = rng.standard_normal((BATCH, WIDTH), dtype=np.float32)
    opt = schuss.AdamW(ws, lr=1e-5)

    def forward():
        hidden = [x]
        for w in ws:
            hidden.append(np.tanh(hidden[-1] @ w))
        return hidden

    def step():
        hidden, grads = forward(), [None] * LAYERS
        dy = hidden[-1] / BATCH
        for i in range(LAYERS)[::-1]:
            dy *= 1 - hidden[i + 1] ** 2
            dx = dy @ ws[i].T
            grads[i] = hidden[i].T @ dy
            dy = dx
        opt.step(grads)

    def stepping():
        hidden = forward()
        dy = hidden[-1] / BATCH
        with opt.stepping() as update:
            for i in range(LAYERS)[::-1]:
                dy *= 1 - hidden[i + 1] ** 2
                dx = dy @ ws[i].T
                update(ws[i], hidden[i].T @ dy)
                dy = dx

    return stepping if by_array else step


def with_torch(by_array):
    import torch

    import schuss.torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    layers = [own for _ in range(LAYERS) for own in (torch.nn.Linear(WIDTH, WIDTH, bias=False), torch.nn.Tanh())]
    network, x = torch.nn.Sequential(*layers), torch.randn(BATCH, WIDTH)
    opt = schuss.torch.AdamW(network.parameters(), lr=1e-5)

    def step():
        network(x).square().mean().backward()
        opt.step()
        opt.zero_grad()

    def stepping():
        loss = network(x).square().mean()
        with opt.stepping():
            loss.backward()

    return stepping if by_array else step


def peak(library, way):
    """The bytes that a step needs at its peak beyond what it finds, in a process of its own; NaN but on Linux."""
    if sys.platform != "linux":
        return float("nan")
    command = [sys.executable, "-m", "benchmarks.backward", library, way]
    # glibc then returns the memory of each array that is freed.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=env, check=True, capture_output=True, text=True)
    return float(done.stdout)


def resident(line):
    """A figure of this process in bytes, such as VmRSS or VmHWM."""
    (found,) = (own for own in Path("/proc/self/status").read_text().splitlines() if own.startswith(line))
    return int(found.split()[1]) * 1024


class Backward(Timed):
    params = [LIBRARIES, WAYS]
    param_names = ["library", "way"]

    def prepared(self, library, way):
        return made(library, way)

    def track_peak(self, library, way):
        return peak(library, way)

    track_peak.unit = "bytes"


if __name__ == "__main__":
    train = made(*sys.argv[1:])
    train()  # makes the states
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is there
    before = resident("VmRSS")
    train()
    print(resident("VmHWM") - before)
