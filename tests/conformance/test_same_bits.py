"""All CPU levels and numbers of threads give the recorded bits, NaN, infinities and denormals included.

data/README.md says what is recorded, and how: at the baseline level, with one thread. A new row needs no record; until
it has one, it is compared with a run of that kind. Newton and others are left out; bits.py says which and why.
"""

import os
import subprocess
import sys
from functools import cache

import bits
import numpy as np
import pytest
from helpers import CASES, DATA, F32, arrays, assert_same, uses_blas

import schuss

LEVELS = schuss.cpu_levels()
FIRST, *RUNS = [(level, threads) for level in LEVELS for threads in (1, 2, 3)]


def rows(lines):
    """The first line says what ran; each other one is a fingerprint and a row's name."""
    return {row: fingerprint for fingerprint, row in (line.split(" ", 1) for line in lines[1:])}


RECORD = rows((DATA / "bits.txt").read_text().splitlines())


@cache
def run(level, threads, *which):
    env = os.environ | {"SCHUSS_CPU": level, "SCHUSS_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, bits.__file__, *which], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == [level, str(threads)]
    return rows(lines)


def different(got, *which):
    want = RECORD if got.keys() <= RECORD.keys() else run(*FIRST, *which) | RECORD
    return [row for row, fingerprint in got.items() if fingerprint != want[row]]


def test_every_case_has_rows_and_every_record_a_case():
    names = {case.name for case, _, _ in bits.runs()}
    assert names == {case.name for case in CASES if not uses_blas(case)}
    assert {row.split(" ", 2)[2] for row in RECORD} <= names


def test_all_rows_at_the_best_level():
    assert not different(run(LEVELS[-1], 2))


@pytest.mark.parametrize(("level", "threads"), [(level, 3 - i % 2) for i, level in enumerate(LEVELS[:-1])])
def test_some_rows_at_the_others(level, threads):
    assert not different(run(level, threads, "sampled"), "sampled")


@pytest.mark.slow
@pytest.mark.parametrize(("level", "threads"), [FIRST, *RUNS])
def test_all_rows(level, threads):
    assert not different(run(level, threads))


@pytest.mark.parametrize("name", ["Adafactor", "AdafactorHF", "AdamP", "CAME", "SGDP", "SM3"])
def test_rows_have_the_same_sums_whether_or_not_terms_are_stored(name):
    # A step adds up long rows while it computes; one that zeroes gradients stores the terms first.
    rng = np.random.default_rng(5)
    w, gradients = rng.standard_normal((40, 5000), F32), rng.standard_normal((3, 40, 5000), F32)
    opts = [schuss.OPTIMIZERS[name](w.copy()) for _ in range(2)]
    for g in gradients:
        opts[0].step(g)
        opts[1].step(g.copy(), zero_grads=True)
    assert_same(arrays(opts[0]), arrays(opts[1]), name)
