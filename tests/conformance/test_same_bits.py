"""All CPU levels and numbers of threads give the same bits, NaN, infinities and denormals included.

Newton is left out; bits.py says why.
"""

import os
import subprocess
import sys
from functools import cache

import bits
import pytest
from helpers import CASES, is_newton

import schuss

RUNS = [(level, threads) for level in schuss.cpu_levels() for threads in (1, 2, 3)]
# One for each level, with several threads; the others are in the slow set.
QUICK = [(level, 3 - i % 2) for i, level in enumerate(schuss.cpu_levels())]


@cache
def lines(level, threads):
    env = os.environ | {"SCHUSS_CPU": level, "SCHUSS_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, bits.__file__], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.split() == [level, str(threads)]
    return rest


def test_baseline_is_always_available():
    assert RUNS[0] == ("baseline", 1)
    assert {line.split(" ", 3)[3] for line in lines(*RUNS[0])} == {c.name for c in CASES if not is_newton(c)}


@pytest.mark.parametrize(
    ("level", "threads"), [run if run in QUICK else pytest.param(*run, marks=pytest.mark.slow) for run in RUNS[1:]]
)
def test_same_bits(level, threads):
    want, got = lines(*RUNS[0]), lines(level, threads)
    different = [g.split(" ", 1)[1] for g, w in zip(got, want, strict=True) if g != w]
    assert not different
