"""Rprop: what only signs decide."""

import numpy as np
import pytest

import schuss


def test_the_size_of_gradients_does_not_matter():
    """Not even where the product of two underflows in float32."""
    big, small = np.ones(2, np.float32), np.ones(2, np.float32)
    one, two = schuss.Rprop(big), schuss.Rprop(small)
    for sign in (1, 1, -1, 1, 1):
        g = np.array([sign, -sign], np.float32)
        one.step(g)
        two.step(g * np.float32(1e-30))
    assert big.tolist() == small.tolist()


def test_the_least_size_is_not_above_the_largest():
    with pytest.raises(ValueError, match=r"^step_sizes must be the least and the largest, got \(2\.0, 1\.0\)$"):
        schuss.Rprop(np.ones(1), step_sizes=(2.0, 1.0))


def test_the_rate_is_the_size_of_the_first_step_only():
    w = np.zeros(1)
    opt = schuss.Rprop(w, lr=1.0)
    opt.step(np.ones(1))
    opt.param_groups[0]["lr"] = 100.0
    opt.step(np.ones(1))
    assert w[0] == pytest.approx(-2.2)
