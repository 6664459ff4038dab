"""A fingerprint of the results of every case. As a script it prints all of them:

    SCHUSS_CPU=baseline SCHUSS_NUM_THREADS=1 python tests/support/bits.py

With the argument `sampled` it leaves out most cases of each optimizer. START:STOP:STEP, a slice, chooses among the
lines left.

There is one line per case, parameter dtype and gradient dtype: the first 64 bits of the SHA-256 of parameters and
states after some steps. The arrays have odd sizes, with and without rows, and are large enough in all for several
threads. The inputs are the same on every machine and with every version of NumPy, so fingerprints can be stored and
compared. Newton and optimizers of matrices are left out: NumPy's BLAS, whose sums depend on CPU and threads, computes
a part of their steps.
"""

import hashlib
import math
import sys
from functools import cache
from itertools import islice

import ml_dtypes
import numpy as np
from cases import CASES
from helpers import (
    DTYPES,
    F32,
    F64,
    build,
    cast,
    clips,
    has_slow_weights,
    is_quantized,
    is_sampled,
    parameters,
    sees_nonfinite,
    shared,
    states,
    sums,
    uses_blas,
)
from reference import inner

import schuss

SHAPES = [(0,), (1,), (), (7,), (16,), (33,), (1000,), (4, 33, 65), (31, 3, 7, 5), (303, 331), (100_003,)]
SIZES = [math.prod(shape) for shape in SHAPES]
HALVES = [dtype for dtype in DTYPES.values() if dtype.itemsize == 2]


def specials(dtype):
    info = ml_dtypes.finfo(dtype)
    tiny, smallest, largest = (float(x) for x in (info.tiny, info.smallest_subnormal, info.max))
    values = [0.0, -0.0, 1.0, smallest, -3 * smallest, tiny, -tiny, tiny - smallest, largest, -largest]
    values += [math.sqrt(largest), -math.sqrt(tiny)]
    return cast(np.array(values), dtype), cast(np.array([np.nan, np.inf, -np.inf]), dtype)


def raw(*seed, n):
    """Random 64-bit integers. NumPy promises that these never change; its distributions may."""
    return np.random.PCG64(seed).random_raw(n)


@cache
def pool(t, dtype, finite):
    """Random values over eight decades; one in sixteen is a special value. `some` splits them into arrays."""
    n = sum(SIZES)
    bits = raw(t, finite, 0, n=n)
    fraction, sign = bits & ((1 << 52) - 1), bits & (1 << 63)
    exponent = (bits >> 52) % 27 + (1023 - 20)
    values = cast((sign | exponent << 52 | fraction).view(F64), dtype)
    tame, wild = specials(dtype)
    # In a sum, one infinity or one overflowing square would make every result NaN.
    extra = tame[:8] if finite else np.concatenate([tame, wild])
    bits = raw(t, finite, 1, n=n)
    where = bits % 16 == 0
    values[where] = extra[(bits[where] >> 4) % len(extra)]
    return values


def some(t, dtype, finite):
    parts = np.split(pool(t, dtype, finite), np.cumsum(SIZES)[:-1])
    return [part.reshape(shape, order="F" if len(shape) == 4 else "C") for part, shape in zip(parts, SHAPES)]


def steps(case):
    """Step numbers: enough for a synchronization of slow weights, and for RAdam's first rectified step, the sixth."""
    last = 7 if has_slow_weights(case) or case.optimizer == "RAdam" else 4
    return range(1, last + 1)


def digest(opt):
    norm = opt.grad_norm
    h = hashlib.sha256((float(norm).hex() if norm is not None else "").encode())
    # Sorted by name, so that the order of the states does not matter.
    for a in [*parameters(opt), *(a for named in (states(opt), shared(opt)) for _, a in sorted(named.items()))]:
        h.update(a.tobytes())
    return h.hexdigest()[:16]


def fingerprint(case, dtype, grad_dtype):
    finite = sees_nonfinite(case) or sums(case)
    params = [p.copy("K") for p in some(0, dtype, finite)]
    opt = build(case, params, **({"master_weights": True} if is_quantized(case) and dtype in HALVES else {}))
    for t in steps(case):
        opt.step(some(t, grad_dtype, finite))
    return digest(opt)


def runs():
    """All cases in float32 and float64; all pairs of dtypes once for each optimizer and set of states."""
    seen = set()
    for case in CASES:
        if uses_blas(case):
            continue
        state = build(case, np.ones(1)).state_dict()["state"][0]
        key = (case.optimizer, tuple(state), clips(case))
        pairs = [(F32, F32), (F64, F64)]
        if is_quantized(case):
            pairs += [(HALVES[-1], p) for p in (F32, HALVES[-1])] + [(F32, HALVES[0]), (HALVES[0], F64)]
        elif key not in seen:
            wrapped = inner(case.optimizer) != case.optimizer
            pairs = [(p, g) for p in DTYPES.values() for g in ([F32, F64] if wrapped else DTYPES.values())]
        seen.add(key)
        for p, g in pairs:
            yield case, p, g


if __name__ == "__main__":
    print(schuss.cpu_level(), schuss.get_num_threads())
    sampled = "sampled" in sys.argv
    chosen = (run for run in runs() if not sampled or is_sampled(run[0]))
    limits = next((argument.split(":") for argument in sys.argv[1:] if ":" in argument), [""])
    for case, dtype, grad_dtype in islice(chosen, *(int(limit) if limit else None for limit in limits)):
        print(fingerprint(case, dtype, grad_dtype), dtype, grad_dtype, case.name)
