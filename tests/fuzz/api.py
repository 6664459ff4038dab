"""Calls the package as a hostile user does, at random, and checks that a failed call changes nothing.

As a program: ``python tests/fuzz/api.py --calls 20000 --seed 0``, or ``--seconds 60``. Each seed runs in a process of
its own, so that a crash is found like any other fault; what is printed repeats it. Knows the public interface only.
"""

import argparse
import faulthandler
import gc
import os
import subprocess
import sys
import time
import warnings

import numpy as np
from calls import ACTS, MAKES
from user import User

CALLS_OF_A_PROCESS = 2_000


def run(seed, calls):
    """Makes calls in this process."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    gc.freeze()  # what is imported need not be looked through again
    gc.disable()  # collected at moments that are repeated
    faulthandler.enable()
    user = User(seed, MAKES, ACTS)
    try:
        user.play(calls)
    finally:
        for path in user.folder.iterdir():
            path.unlink()
        user.folder.rmdir()
    print(f"seed {seed}: {user.calls} calls, {user.refused} refused")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--calls", type=int, default=20_000, help="calls in all")
    parser.add_argument("--seconds", type=float, help="run this long instead")
    parser.add_argument("--here", action="store_true", help="make the calls in this process, of one seed")
    given = parser.parse_args()
    if given.here:
        run(given.seed, given.calls)
        return
    seed, end = given.seed, None if given.seconds is None else time.monotonic() + given.seconds
    faults = 0
    while time.monotonic() < end if end else (seed - given.seed) * CALLS_OF_A_PROCESS < given.calls:
        calls = (
            CALLS_OF_A_PROCESS
            if end
            else min(CALLS_OF_A_PROCESS, given.calls - (seed - given.seed) * CALLS_OF_A_PROCESS)
        )
        command = [sys.executable, __file__, "--here", "--seed", str(seed), "--calls", str(calls)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            faults += 1
            print(f"FAULT, exit status {done.returncode}: {' '.join(command)}\n{done.stderr}", flush=True)
        seed += 1
    print(f"{faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
