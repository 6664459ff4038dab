"""Optimizers that sum over each array, its rows or its columns: arrays of all sizes, and norms of zero."""

import numpy as np
import pytest
from helpers import F64, arrays, assert_close, assert_same, compute_dtype, each_dtype, grads_of, params_of
from reference import Reference

import schuss

LAYERWISE = {
    "LARS": dict(lr=0.1, weight_decay=0.01, trust_coefficient=0.1),
    "LAMB": dict(lr=0.01, max_grad_norm=None),
}
each_layerwise = pytest.mark.parametrize("name", LAYERWISE)
# Sums have blocks of 1024 elements. Up to 32768 elements one task runs all passes; larger arrays take one parallel
# region per pass.
LAYERS = [(1,), (1023,), (1025,), (32, 1024), (32769,), (300, 301), (0,)]
# Many rows or columns, very long ones, and a batch, for optimizers with states of rows and columns.
MATRICES = [(1, 1), (5, 7), (40_000, 2), (2, 40_000), (1, 3000), (3000, 1), (3, 90, 500), (700, 3, 3), (2, 3, 0)]
SUMMED = LAYERWISE | {
    "NovoGrad": dict(lr=0.01, weight_decay=0.01),
    "DoG": dict(reps_rel=0.1, layerwise=True),
}
FACTORED = {
    "Adafactor": dict(lr=0.1, weight_decay=0.01),
    "AdafactorHF": dict(lr=0.1, beta1=0.9),
    "CAME": dict(lr=0.01, betas=(0.9, 0.9, 0.99)),
    "SM3": dict(momentum=0.9),
}
SUMMED |= FACTORED


@pytest.mark.parametrize("name", SUMMED)
@each_dtype
@pytest.mark.parametrize("order", ["C", "F"])
def test_layers_of_all_sizes(name, dtype, order):
    """The equations hold, with the same bits for any number of threads and for each layer alone."""
    shapes = LAYERS + (MATRICES if name in FACTORED else [])
    params = [np.asarray(p, order=order) for p in params_of(shapes, dtype)]
    alone = [p.copy("K") for p in params]
    grads = [[np.asarray(g, order=order) for g in grads_of(t, shapes, dtype)] for t in (1, 2, 3)]
    reference = Reference(name, params, **SUMMED[name])
    results = []
    for count in (1, 2, 3):
        schuss.set_num_threads(count)
        own = [p.copy("K") for p in params]
        opt = getattr(schuss, name)(own, **SUMMED[name])
        for g in grads:
            given = [a.copy("K") for a in g]
            opt.step(given, zero_grads=count > 1)
            assert count == 1 or not any(a.any() for a in given)
        results.append(arrays(opt))
    assert_same(results[1], results[0], "2 threads")
    assert_same(results[2], results[0], "3 threads")
    for p, own in zip(alone, zip(*grads, strict=True), strict=True):
        opt = getattr(schuss, name)(p, **SUMMED[name])
        for g in own:
            opt.step(g)
    assert_same(alone, results[0][: len(alone)], "alone")
    if dtype == compute_dtype(dtype):
        for g in grads:
            reference.step(g)
        assert_close(results[0][: len(params)], reference.params, 1e-12 if dtype == F64 else 2e-5)


@each_layerwise
@pytest.mark.parametrize("size", [100, 40_000])
def test_the_trust_ratio_of_a_zero_norm_is_one(name, size):
    """For a layer that is zero, and for an update that is zero."""
    rng = np.random.default_rng(2)
    g, p = rng.standard_normal(size), np.zeros(size)
    getattr(schuss, name)(p, **LAYERWISE[name]).step(g)
    assert_close([p], [-0.1 * g if name == "LARS" else -0.01 * g / (abs(g) + 1e-6)], 1e-13)
    p = rng.standard_normal(size)
    before = p.copy()
    getattr(schuss, name)(p, **LAYERWISE[name] | {"weight_decay": 0.0, "always_adapt": True}).step(np.zeros(size))
    assert_same([p], [before])


def test_trust_clip_with_a_learning_rate_of_zero():
    p = np.ones(5)
    schuss.LARS(p, lr=0.0, always_adapt=True, trust_clip=True).step(np.ones(5))
    assert_same([p], [np.ones(5)])
