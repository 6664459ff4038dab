"""An eps of zero, or one that is zero in the dtype of the update: 0 / 0 is 0, nothing else changes. Tiny gradients."""

import numpy as np
import pytest
from cases import CASES
from helpers import F32, F64, build, is_newton, parameters, sampled_cases_but

import schuss

SHAPES = [(300,), (4, 5)]
EPS = [case for case in CASES if "eps" in getattr(schuss.OPTIMIZERS.get(case.optimizer), "_parameters", ())]


def with_eps(case, eps):
    pair = {name: (eps, 1e-3) for name in ("Adafactor", "AdafactorHF")} | {"CAME": (eps, eps)}
    return {**case.kwargs, "eps": pair.get(case.optimizer, eps)}


@sampled_cases_but(lambda case: case not in EPS)
@pytest.mark.parametrize(("dtype", "eps"), [(F32, 0.0), (F32, 1e-60), (F32, 1e-45), (F64, 0.0)])
def test_a_gradient_of_zero_is_no_nan(case, dtype, eps):
    """At the start, beside others, and after others."""
    params = [np.ones(shape, dtype) for shape in SHAPES]
    opt = getattr(schuss, case.optimizer)(params, **with_eps(case, eps))
    rng = np.random.default_rng(0)
    some = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    for g in some:
        g.flat[::3] = 0
    nothing = [np.zeros_like(g) for g in some]
    for grads in (nothing, nothing, some, nothing, some):
        opt.step(grads)
        assert all(np.isfinite(p).all() for p in parameters(opt))


@pytest.mark.parametrize("size", [1e-15, 1e-8, 1.0, 1e8])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_what_it_is_replaced_by_does_not_count(size, dtype):
    """The first steps of these are the learning rate times the sign, to the last bits, whatever the gradient's size."""
    for kind in (schuss.Adam, schuss.AdamW, schuss.Yogi, schuss.Adamax, schuss.NovoGrad):
        w = np.zeros(1, dtype)
        more = dict(initial_accumulator_value=0.0) if kind is schuss.Yogi else {}
        kind(w, lr=1.0, eps=0.0, weight_decay=0.0, **more).step(np.array([-size], dtype))
        np.testing.assert_allclose(w, 1.0, rtol=4 * np.finfo(dtype).eps)
    for kind in (schuss.Adagrad, schuss.RMSprop):
        for inside in (False, True):
            w = np.zeros(1, dtype)
            given = dict(alpha=0.0) if kind is schuss.RMSprop else {}
            kind(w, lr=1.0, eps=0.0, eps_inside_sqrt=inside, **given).step(np.array([-size], dtype))
            np.testing.assert_allclose(w, 1.0, rtol=4 * np.finfo(dtype).eps)


def test_a_gradient_whose_square_vanishes_moves_little():
    w = np.zeros(2, F32)
    schuss.Adam(w, lr=1.0, eps=0.0).step(np.array([1e-30, -1e-24], F32))
    assert np.abs(w).max() <= 100


def diverges(case):
    """D-Adaptation of SGD measures gradients before weight decay, which is huge beside tiny ones."""
    return case.optimizer == "DAdaptSGD" and case.kwargs.get("weight_decay")


@sampled_cases_but(diverges, is_newton)
@pytest.mark.parametrize(("dtype", "size"), [(F32, 1e-42), (F32, 1e-38), (F64, 1e-310)])
def test_a_tiny_gradient_is_no_nan(case, dtype, size):
    """The factors that norms yield can be infinite in the dtype of the update, where gradients are zero too."""
    opt = build(case, [np.ones(shape, dtype) for shape in SHAPES])
    grads = [np.zeros(shape, dtype) for shape in SHAPES]
    for g in grads:
        g.flat[::3], g.flat[1::6] = size, -size
    for _ in range(3):
        opt.step(grads)
        assert all(np.isfinite(p).all() for p in parameters(opt))
