"""FTRL where nothing bounds its minimum. The conformance table covers the rest."""

import numpy as np
import pytest

import schuss


@pytest.mark.parametrize("gradient", [1e-30, -1e-30])
def test_a_first_gradient_whose_square_vanishes(gradient):
    w = np.zeros(2, np.float32)
    opt = schuss.FTRL(w, initial_accumulator_value=0.0)
    opt.step(np.array([gradient, 1.0], np.float32))
    assert w[0] == 0.0 and w[1] < 0.0
    opt.step(np.ones(2, np.float32))
    assert np.isfinite(w).all() and (w < 0.0).all()
