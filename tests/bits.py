"""Prints a fingerprint of what every case computes; run by test_same_bits.py in processes of their own.

    SCHUSS_CPU=baseline SCHUSS_NUM_THREADS=1 python bits.py

One line a case, parameter dtype and gradient dtype: the SHA-256 of the raw bytes of parameters and states after four
steps, over arrays of odd sizes that together pass the size from which threads are used, with and without rows. Newton
is not here: NumPy's BLAS, which solves its system, chooses its kernels and the order of its sums by CPU and threads.
"""

import hashlib
import math
from functools import cache

import ml_dtypes
import numpy as np
from cases import CASES
from helpers import DTYPES, F32, F64, arrays, build, cast, clips, is_joint, is_small, sees_nonfinite, sums
from reference import inner

import schuss

SHAPES = [(0,), (1,), (7,), (16,), (33,), (1000,), (31, 3, 7, 5), (303, 331), (100_003,)]
SIZES = [math.prod(shape) for shape in SHAPES]
STEPS = 4
HALVES = [dtype for dtype in DTYPES.values() if dtype.itemsize == 2]


def specials(dtype):
    info = ml_dtypes.finfo(dtype)
    tiny, smallest, largest = (float(x) for x in (info.tiny, info.smallest_subnormal, info.max))
    values = [0.0, -0.0, 1.0, smallest, -3 * smallest, tiny, -tiny, tiny - smallest, largest, -largest]
    values += [largest**0.5, -(tiny**0.5)]
    return cast(np.array(values), dtype), cast(np.array([np.nan, np.inf, -np.inf]), dtype)


@cache
def pool(t, dtype, finite):
    """Random values over eight decades, every sixteenth a special one; cut into arrays by `some`."""
    rng = np.random.default_rng([t, finite])
    n = sum(SIZES)
    values = cast(rng.standard_normal(n) * 10.0 ** rng.uniform(-6, 2, n), dtype)
    tame, wild = specials(dtype)
    # A sum would turn one infinity, or one square that overflows, into NaN everywhere.
    extra = tame[:8] if finite else np.concatenate([tame, wild])
    where = rng.random(n) < 1 / 16
    values[where] = rng.choice(extra, where.sum())
    return values


def some(t, dtype, finite):
    parts = np.split(pool(t, dtype, finite), np.cumsum(SIZES)[:-1])
    return [part.reshape(shape, order="F" if len(shape) == 4 else "C") for part, shape in zip(parts, SHAPES)]


def fingerprint(case, dtype, grad_dtype):
    finite = sees_nonfinite(case) or sums(case)
    params = [p.copy("K") for p in some(0, dtype, finite)]
    opt = build(case, params, **({"master_weights": True} if is_small(case) and dtype in HALVES else {}))
    for t in range(1, STEPS + 1):
        opt.step(some(t, grad_dtype, finite))
    h = hashlib.sha256(repr(opt.grad_norm).encode())
    for a in arrays(opt):
        h.update(a.tobytes())
    return h.hexdigest()


def runs():
    """All cases in float32 and float64; all pairs of dtypes for each rule and set of states."""
    seen = set()
    for case in CASES:
        if is_joint(case):
            continue
        state = build(case, np.ones(1)).state_dict()["state"][0]
        key = (case.optimizer, tuple(state), clips(case))
        pairs = [(F32, F32), (F64, F64)]
        if is_small(case):
            pairs += [(HALVES[-1], p) for p in (F32, HALVES[-1])] + [(F32, HALVES[0]), (HALVES[0], F64)]
        elif key not in seen:
            wrapped = inner(case.optimizer) != case.optimizer
            pairs = [(p, g) for p in DTYPES.values() for g in ([F32, F64] if wrapped else DTYPES.values())]
        seen.add(key)
        for p, g in pairs:
            yield case, p, g


if __name__ == "__main__":
    print(schuss.cpu_level(), schuss.get_num_threads())
    for case, dtype, grad_dtype in runs():
        print(fingerprint(case, dtype, grad_dtype), dtype, grad_dtype, case.name)
