"""Programs other than the step, over arrays on a GPU: the modes of schedule-free optimizers, Sophia's Hessian."""

import gpu
import numpy as np
import pytest
from gpu_pairs import assert_same, normal, pair, step_both

import schuss

VALUES = [normal((40, 50)), normal(7, np.float64), normal(2000, np.float16)]


@pytest.mark.parametrize("kind", [schuss.ScheduleFreeSGD, schuss.ScheduleFreeAdamW, schuss.ScheduleFreeRAdam])
def test_modes(kind):
    here, there = pair(kind, VALUES, lr=0.1)
    for t in range(7):
        step_both(here, there, [normal(v.shape, np.float32, t) for v in VALUES])
        for mode in ("eval", "train"):
            getattr(here, mode)()
            getattr(there, mode)()
            assert here.mode == there.mode == mode
            assert_same(here, there)
    there.eval()
    with pytest.raises(RuntimeError, match="call train"):
        there.step([gpu.Array(v) for v in VALUES])
    assert there.step_count == 7


def test_other_programs_keep_the_norm_of_the_last_step():
    here, there = pair(schuss.ScheduleFreeSGD, [normal(5, np.float16)], lr=0.1, max_grad_norm=1.0)
    step_both(here, there, [normal(5, np.float32)])
    there.eval()
    assert there.grad_norm == here.grad_norm is not None


@pytest.mark.parametrize("kind", [schuss.SophiaG, schuss.SophiaH])
def test_update_hessian(kind):
    here, there = pair(kind, VALUES, lr=0.1)
    for t in range(4):
        estimates = [abs(normal(v.shape, np.float32, 9 + t)) for v in VALUES]
        here.update_hessian(estimates)
        there.update_hessian([gpu.Array(e) for e in estimates])
        step_both(here, there, [normal(v.shape, np.float32, t) for v in VALUES])
    assert_same(here, there)
    with pytest.raises(ValueError, match=r"estimate\[1\] has shape"):
        there.update_hessian([gpu.Array(VALUES[0]), gpu.Array(VALUES[0]), gpu.Array(VALUES[2])])
