"""The host's memory runs out in a call for arrays on a GPU, an emulated one: MemoryError, and nothing has changed."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs LD_PRELOAD and the emulator"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++"),
]

# Any allocation as large as a list with an entry for each array fails, one after the other, each in a child.
SCRIPT = """
import ctypes, gc, os, sys, traceback
import numpy as np
import gpu
gpu.start()
import schuss

library = ctypes.CDLL(os.environ["COUNTING"])
COUNT, LEAST = 600, 8 * 600


def arrays(value):
    return [gpu.Array(np.full(2, value, np.float32)) for _ in range(COUNT)]


def first_step(**options):
    params, grads = arrays(1.0), arrays(0.5)
    opt = schuss.AdamW(params, lr=0.1, **options)
    return params, opt, lambda: opt.step(grads)


def missing():
    params, opt, _ = first_step()
    grads = arrays(0.5)
    opt.step(grads)
    some = [g if i % 3 else None for i, g in enumerate(grads)]
    return params, opt, lambda: opt.step(some)


def group():
    params, opt, step = first_step()
    step()
    more = arrays(2.0)
    return params, opt, lambda: opt.add_param_group({"params": more})


def groups():
    params, grads = arrays(1.0), [[g] for g in arrays(0.5)]
    opt = schuss.SGD([{"params": [p], "lr": 0.1} for p in params])
    return params, opt, lambda: opt.step(grads)


CASES = {
    "the first step": lambda: first_step(max_grad_norm=0.5),
    "missing gradients": missing,
    "a group": group,
    "many groups": groups,
}


def image(params, opt):
    return [p.host.tobytes() for p in params], opt.step_count, len(opt.param_groups)


def attempt(params, opt, call, nth):
    child = os.fork()
    if not child:
        status = 1
        try:
            before, failed = image(params, opt), False
            library.fail(nth, LEAST)
            try:
                call()
            except MemoryError:
                failed = True
            reached = library.has_failed()
            library.fail(-1, 0)
            after = image(params, opt)
            assert not failed or after == before, "it has changed something"
            if failed:
                call()
                after = image(params, opt)
            print(hash(str(after)), flush=True)
            status = 2 if reached else 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


for make in CASES.values():  # compiles the kernels
    make()[2]()
params, opt, call = CASES[sys.argv[1]]()
gc.disable()
codes = []
while len(codes) < 200 and (not codes or codes[-1] != 0):
    codes.append(attempt(params, opt, call, len(codes)))
print("codes", *codes)
"""
SUCCEEDED, FAILED = "0", "2"
CASES = SCRIPT.partition("CASES = {")[2].partition("}\n")[0]
NAMES = [line.split('"')[1] for line in CASES.splitlines() if '":' in line]


@pytest.mark.parametrize("name", NAMES)
def test_each_allocation_may_fail(name, counting):
    names = {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "support"), *sys.path]), "PYTHONHASHSEED": "0"}
    names |= {"LD_PRELOAD": str(counting), "COUNTING": str(counting), "SCHUSS_TEST_CUDA": "emulator"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name],
        env=os.environ | names,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    *results, last = done.stdout.splitlines()
    codes = last.split()[1:]
    assert set(codes) == {SUCCEEDED, FAILED} and codes[-1] == SUCCEEDED, f"{codes} {done.stderr[-5000:]}"
    assert len(results) == len(codes) and len(set(results)) == 1, "a step after a failed one has another result"
