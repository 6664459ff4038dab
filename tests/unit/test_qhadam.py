"""QHAdam where it is Adam. The conformance table covers the rest."""

import pytest
from helpers import F32, assert_close, grads_of, params_of

import schuss

SHAPES = [(33,), (5, 3)]


@pytest.mark.parametrize("size", [1.0, 1e30])
def test_with_nus_of_one_it_is_adam(size):
    """Also where squares overflow, so that nothing moves."""
    params, twins = params_of(SHAPES, F32), params_of(SHAPES, F32)
    opt, adam = schuss.QHAdam(params, lr=0.1, nus=(1.0, 1.0)), schuss.Adam(twins, lr=0.1, betas=(0.9, 0.999))
    for t in (1, 2, 3):
        grads = [(g * size).astype(F32) for g in grads_of(t, SHAPES)]
        opt.step(grads)
        adam.step(grads)
    assert_close(params, twins, 1e-5)
