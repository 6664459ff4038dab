"""Optimizers over a nested structure of arrays, and their steps, for tests of states, copies and files."""

import numpy as np
import pytest
from helpers import DTYPES, F64, build, grads_of, params_of

SHAPES = [(33,), (5, 3), (), (0,)]
#: Those besides that of the table's cases.
each_other_dtype = pytest.mark.parametrize("dtype", [d for d in DTYPES.values() if d != F64], ids=str)


def structure(arrays):
    """A nested structure with keys that are not strings, and an array in Fortran order."""
    a, b, c, d = arrays
    return {"a": a, 1: [np.asfortranarray(b)], "1": (c, {None: d}), (2, "x"): {}}


def start(case, dtype=F64, seed=1, **more):
    return build(case, structure(params_of(SHAPES, dtype, seed)), **more)


def take(opt, steps, dtype=F64):
    for t in steps:
        opt.step(structure(grads_of(t, SHAPES, dtype)))
