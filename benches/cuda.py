"""AdamW on an NVIDIA GPU, compared with a copy on the device and with PyTorch's fused AdamW in the same run.

    python benches/cuda.py [--elements N] [--arrays N] [--length N] [--rounds N]

A float32 step moves 28 bytes per element (parameter, m and v are read and written, the gradient is read), a copy on the
device 8. The figures that count are the step's share of the copy's bandwidth, and PyTorch's time divided by ours. The
jobs alternate; figures are medians over the rounds. Without PyTorch its column is left out.
"""

import argparse
import statistics
import time

import numpy as np

from schuss import AdamW, _schuss
from schuss._backends import cuda_arrays

STEP, COPY = 28, 8  # bytes per element
BETWEEN = 20  # steps per time measurement


def ours(sizes):
    """A step over arrays of these sizes, in memory that the package allocates."""

    def arrays(first):
        like = [cuda_arrays.DeviceArray(0, (n,), np.dtype(np.float32), "C", 0, None, "") for n in sizes]
        made = cuda_arrays.allocate(like, [array.dtype for array in like])
        for i, array in enumerate(made):
            array[...] = np.full(array.shape, first + i % 7, np.float32)
        return made

    params, grads = arrays(1.0), arrays(0.1)
    opt = AdamW(params)
    return lambda: opt.step(grads)


def copying(n):
    blocks = [_schuss.CudaBlock(0, 4 * n, False) for _ in range(2)]
    return lambda: _schuss.cuda_copy(0, blocks[0].pointer, blocks[1].pointer, 4 * n, cuda_arrays.LEGACY)


def fused(sizes):
    """PyTorch's fused AdamW; None if PyTorch has no GPU."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    params = [torch.ones(n, device="cuda:0", requires_grad=True) for n in sizes]
    for param in params:
        param.grad = torch.full_like(param, 0.1)
    opt = torch.optim.AdamW(params, fused=True)
    return opt.step


def medians(jobs, rounds):
    """The median seconds of each job."""
    seconds = {name: [] for name, job in jobs.items() if job}
    for number in range(rounds + 1):
        for name in seconds:
            jobs[name]()
            _schuss.cuda_synchronize(0, cuda_arrays.LEGACY)
            start = time.perf_counter()
            for _ in range(BETWEEN):
                jobs[name]()
            _schuss.cuda_synchronize(0, cuda_arrays.LEGACY)
            if number:  # the first round warms up
                seconds[name].append((time.perf_counter() - start) / BETWEEN)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=64 << 20)
    parser.add_argument("--arrays", type=int, default=1000)
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    cuda_arrays.prepare()

    n = given.elements
    took = medians({"copy": copying(n), "schuss": ours([n]), "torch": fused([n])}, given.rounds)
    bandwidth = COPY * n / took["copy"]
    print(f"one array of {n:,} elements: step {took['schuss'] * 1e6:,.0f} us, copy at {bandwidth / 1e9:,.0f} GB/s")
    print(f"  share of the copy's bandwidth  {STEP * n / took['schuss'] / bandwidth:.2f}  (wanted: 0.90)")
    if "torch" in took:
        print(f"  torch fused over ours          {took['torch'] / took['schuss']:.2f}  (wanted: 1.0)")

    sizes = [given.length] * given.arrays
    took = medians({"schuss": ours(sizes), "torch": fused(sizes)}, given.rounds)
    print(f"{given.arrays:,} arrays of {given.length:,}: step {took['schuss'] * 1e6:,.0f} us")
    if "torch" in took:
        print(f"  torch fused over ours          {took['torch'] / took['schuss']:.2f}  (wanted: 2.0)")


if __name__ == "__main__":
    main()
