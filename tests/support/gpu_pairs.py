"""The same optimizer on the host and on a GPU: shared by the tests of steps on a GPU. Arrays are in gpu.py."""

import gpu
import numpy as np
import pytest
from helpers import arrays

emulated = pytest.mark.skipif(gpu.MODE != "emulator", reason="reads the emulator's log")


def normal(shape, dtype=np.float32, seed=0, order="C"):
    """Normally distributed values on the host."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype), order=order)


def pair(kind, values, **kwargs):
    """The same optimizer on the host and on the GPU."""
    return (
        kind([v.copy("K") for v in values], **kwargs),
        kind([gpu.Array(v) for v in values], **kwargs),
    )


def step_both(here, there, grads, **options):
    assert here.step([g.copy("K") for g in grads], **options) == there.step([gpu.Array(g) for g in grads], **options)


def assert_same(here, there):
    for got, want in zip(arrays(there), arrays(here), strict=True):
        assert np.asarray(got).tobytes() == want.tobytes()
