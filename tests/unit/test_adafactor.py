"""Adafactor: the floor of its second moments, gradients of zero, and its two learning rates.

The conformance table covers what all optimizers share; test_layerwise.py covers sums of all sizes.
"""

import numpy as np
import pytest
from helpers import F64, assert_close, assert_same, cast, each_dtype, grads_of, parameters, params_of
from reference import Reference

import schuss

SHAPES = [(33,), (5, 3), (2, 3, 4)]


@each_dtype
@pytest.mark.parametrize("size", [1000.0, 1.0, 0.1])
def test_the_default_eps_is_that_of_the_compute_dtype(dtype, size):
    """eps[0]=None means its machine epsilon; for 16-bit parameters that is float32's."""
    params, wide = params_of(SHAPES, dtype), np.float64 if dtype == F64 else np.float32
    eps = float(np.finfo(wide).eps)
    default, given = schuss.Adafactor(params), schuss.Adafactor([p.copy() for p in params], eps=(eps, 1e-3))
    reference = Reference("Adafactor", [p.astype(wide) for p in params])
    for t in (1, 2, 3):
        grads = [cast(g * size * eps, wide) for g in grads_of(t, SHAPES)]
        for opt in (default, given, reference):
            opt.step(grads)
    assert_same(parameters(default), parameters(given))
    if dtype.itemsize > 2:
        assert_close(params, reference.params, 1e-12 if dtype == F64 else 2e-6)


def test_each_array_has_the_eps_of_its_own_dtype():
    dtypes, shape = ["float64", "float32", "bfloat16", "float64"], (4, 6)
    together, alone = ([params_of([shape], d)[0] for d in dtypes] for _ in range(2))
    opts = [schuss.Adafactor(together), *(schuss.Adafactor([p]) for p in alone)]
    for t in (1, 2, 3):
        g = grads_of(t, [shape])[0] * 1e-8
        opts[0].step([g] * 4)
        for opt in opts[1:]:
            opt.step([g])
    assert_same(together, alone)


@each_dtype
def test_elements_with_zero_gradients_do_not_move(dtype):
    """Rows, columns and whole arrays of zeros leave the parameters unchanged, and produce no NaN."""
    params = params_of([(4, 5), (4, 5), (6,)], dtype)
    opt, start = schuss.Adafactor(params, lr=0.1), [p.copy() for p in params]
    for t in (1, 2, 3):
        partly = grads_of(t, [(4, 5)], dtype)[0]
        partly[2] = partly[:, 3] = 0
        opt.step([partly, np.zeros((4, 5), dtype), np.zeros(6, dtype)])
    assert_same(params[1:], start[1:])
    moved = params[0] != start[0]
    assert not moved[2].any() and not moved[:, 3].any() and moved.sum() == 12
    assert np.isfinite(params[0].astype(F64)).all()


@pytest.mark.parametrize("options", [{}, dict(beta1=0.9)])
@pytest.mark.parametrize("kind", [schuss.AdafactorHF, schuss.CAME])
def test_rows_of_zeros_beside_large_gradients(kind, options):
    """Such as unused rows of an embedding, under a loss that is scaled: their moment is eps, far from the mean."""
    if kind is schuss.CAME and options:
        options = dict(betas=(0.8, 0.99, 0.999))
    w, start = np.ones((4, 3), np.float32), np.ones((4, 3), np.float32)
    g = np.full((4, 3), 1e5, np.float32)
    g[1] = 0
    opt = kind([w], **options)
    for _ in range(3):
        opt.step([g])
    assert_same(w[1], start[1])
    assert np.isfinite(w).all() and (np.delete(w, 1, 0) < 1).all()


def test_the_relative_step_ignores_the_learning_rate():
    """With relative_step, lr only scales the weight decay."""
    results = []
    for lr in (1e-4, 0.5):
        params = params_of(SHAPES)
        opt = schuss.Adafactor(params, lr=lr, relative_step=True)
        for t in (1, 2, 3):
            opt.step(grads_of(t, SHAPES))
        results.append(params)
    assert_same(*results)


@pytest.mark.parametrize("shape", [(5000, 3, 7), (3, 5000, 7), (4097, 2, 3), (64, 65, 3, 3), (300_000, 2, 2)])
def test_batches_in_fortran_order(shape):
    """Matrices are interleaved in Fortran order; scratch memory must grow with the array, not with its square."""
    param, grad = (np.random.default_rng(seed).standard_normal(shape) for seed in (0, 1))
    results = []
    for order in "CF":
        own = param.copy(order)
        schuss.Adafactor(own, lr=0.01).step(grad.copy(order))
        results.append(own)
    assert_close(*results, 1e-14)


def test_metrics_are_numbers_where_the_optimizer_finds_its_own_rate():
    assert schuss.AdafactorHF(np.ones(3)).metrics() == {"step": 0, "skipped_steps": 0}
