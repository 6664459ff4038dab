"""After the first steps, a step allocates nothing. An allocator that wraps glibc's counts."""

import os
import subprocess
import sys

STEPS = 500

SCRIPT = """
import ctypes, itertools, os, sys
import numpy as np, schuss

count = ctypes.CDLL(os.environ["LD_PRELOAD"]).allocations
count.restype = ctypes.c_size_t
steps = int(sys.argv[1])


def allocations(make, arrays, shape, **options):
    params, grads = ([np.ones(shape, np.float32) for _ in range(arrays)] for _ in range(2))
    opt = make(params, lr=1e-3, **options)
    for _ in range(50):
        opt.step(grads)
    before = count()
    for _ in itertools.repeat(None, steps):
        opt.step(grads)
    return count() - before


assert allocations(lambda *_, **__: type("Leaky", (), {"step": lambda self, g: np.empty(5000)})(), 1, 1) >= steps
cases = [
    (schuss.SGD, {}),
    (schuss.SGD, {"momentum": 0.9, "nesterov": True}),
    (schuss.Adagrad, {}),
    (schuss.RMSprop, {"centered": True}),
    (schuss.AdamW, {}),
    (schuss.AdamW, {"max_grad_norm": 1.0}),
    (schuss.AdamW, {"nonfinite": "skip"}),
    (schuss.AdamW, {"state_dtype": "bfloat16"}),
    (schuss.AdamW, {"state_dtype": "int8"}),
    (schuss.RAdam, {}),
    (schuss.LARS, {"weight_decay": 1e-4}),
    (schuss.LAMB, {}),
]
for make, options in cases:
    for arrays, shape in (1, 1024), (1, 1 << 18), (100, 16), (1000, 1000):
        print(allocations(make, arrays, shape, **options), make.__name__, options, arrays, shape)
"""


def test_a_step_allocates_nothing(counting):
    command = [sys.executable, "-c", SCRIPT, str(STEPS)]
    done = subprocess.run(command, env=os.environ | {"LD_PRELOAD": str(counting)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 48
    # The thread pool's queue allocates a block for every 63 jobs; a step that allocates would show hundreds.
    assert [line for line in lines if int(line.split()[0]) > STEPS / 4] == []
