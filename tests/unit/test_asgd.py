"""ASGD's averages: what `averaged` returns, and when a changed rate acts."""

import numpy as np
import pytest

import schuss


def test_averages_are_of_the_parameters_after_each_step():
    w, b = np.zeros(2), np.zeros((2, 2), np.float32)
    opt = schuss.ASGD({"w": w, "b": [b]}, lr=0.5, lambd=0.0, t0=1.0)
    seen = []
    for _ in range(4):
        opt.step({"w": np.ones(2), "b": [np.ones((2, 2), np.float32)]})
        seen.append(w[0])
    found = opt.averaged()
    assert found["w"].dtype == np.float64 and found["b"][0].dtype == np.float32
    # Until step 3, the second behind t0, the average is the parameter itself.
    np.testing.assert_allclose(found["w"], np.mean(seen[2:]))
    np.testing.assert_allclose(found["b"][0], np.mean(seen[2:]))
    found["w"][:] = 7.0  # a copy
    assert opt.averaged()["w"][0] != 7.0


def test_averages_of_groups_and_before_any_step():
    opt = schuss.ASGD([{"params": np.ones(2)}, {"params": [np.full(3, 2.0)]}])
    first, second = opt.averaged()
    assert first.tolist() == [1.0, 1.0] and second[0].tolist() == [2.0, 2.0, 2.0]


def test_averages_keep_their_precision():
    """Small steps would be lost in bfloat16, so the averages are never stored in it."""
    pytest.importorskip("ml_dtypes")
    w = np.ones(1000)
    opt = schuss.ASGD(w, lr=1e-6, t0=0.0, state_dtype="bfloat16", state_rounding="nearest")
    for _ in range(10):
        opt.step(np.ones(1000))
    assert 1e-6 < 1 - opt.averaged()[0] < 1e-5


def test_a_changed_rate_acts_one_step_late():
    w = np.zeros(1)
    opt = schuss.ASGD(w, lr=1.0, lambd=0.0)
    opt.step(np.ones(1))
    opt.param_groups[0]["lr"] = 0.25
    opt.step(np.ones(1))
    assert w.tolist() == [-2.0]
    opt.step(np.ones(1))
    assert w.tolist() == [-2.25]
