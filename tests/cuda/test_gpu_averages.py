"""Averages over arrays on a GPU: the same bits as on the host."""

import gpu
import numpy as np
import pytest
from gpu_pairs import assert_same, normal, pair

import schuss

VALUES = [normal((40, 50)), normal(7, np.float64), normal(2000, np.float16)]


@pytest.mark.parametrize("cls", [schuss.EMA, schuss.SWA, schuss.Polyak])
def test_averages(cls):
    here, there = (cls(opt) for opt in pair(schuss.AdamW, VALUES, lr=0.1))
    for t in range(5):
        grads = [normal(v.shape, np.float32, t) for v in VALUES]
        here.step(grads)
        there.step([gpu.Array(g) for g in grads])
    assert here.updates == there.updates == 5
    assert_same(here, there)
    with here.swap(), there.swap():
        assert_same(here, there)
    assert_same(here, there)
