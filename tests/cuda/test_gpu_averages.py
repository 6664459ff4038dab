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


def test_a_context_that_was_made_before_a_group_was_added():
    opt = schuss.EMA(schuss.SGD(gpu.Array(normal(3)), lr=0.5))
    context = opt.swap()
    opt.add_param_group({"params": gpu.Array(normal(2))})
    with pytest.raises(ValueError, match=r"^a group was added after this context was made; make a new one$"):
        context.__enter__()
    with opt.swap():
        pass
