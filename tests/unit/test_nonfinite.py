"""Gradients with NaN or infinity: found wherever they are, and propagated, skipped or an error, as `nonfinite` says."""

import math
import re

import numpy as np
import pytest
from helpers import (
    F32,
    F64,
    arrays,
    assert_same,
    assert_unchanged,
    each_case_but,
    each_dtype,
    each_optimizer_newton_too,
    grads_of,
    is_newton,
    parameters,
    params_of,
    sampled_cases,
    snapshot,
    sums,
    twins,
)

import schuss

SHAPES = [(33,), (5, 3), ()]
STEPS = range(1, 6)

BAD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


def nonfinite_grads(t, value, dtype=F64, index=1):
    grads = grads_of(t, SHAPES, dtype)
    grads[index].ravel()[-1:] = value
    return grads


@sampled_cases
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_nonfinite_skip(case, value):
    """A skipped step changes only the count of skipped steps."""
    opt, twin = twins(case, SHAPES, nonfinite="skip")
    for t in STEPS:
        before = snapshot(opt)
        assert opt.step(nonfinite_grads(t, value)) is False
        assert opt.skipped_steps == t and opt.step_count == t - 1
        assert_same(arrays(opt), before[0], "after a skipped step")
        assert opt.step(grads_of(t, SHAPES)) is True
        twin.step(grads_of(t, SHAPES))
    assert_same(arrays(opt), arrays(twin))
    assert (opt.step_count, twin.skipped_steps) == (5, 0)


@each_optimizer_newton_too
@each_dtype
@pytest.mark.parametrize("index", [0, 1, 2])
def test_nonfinite_is_found_in_every_dtype_and_array(case, dtype, index):
    for value in BAD.values():
        opt, _ = twins(case, SHAPES, nonfinite="skip")
        assert opt.step(nonfinite_grads(1, value, dtype, index)) is False


@pytest.mark.parametrize("size", [1, 7, 16, 1000, 32768, 140_000])
def test_nonfinite_is_found_at_every_position(size):
    opt = schuss.SGD(np.zeros(size, F32), nonfinite="skip")
    for i in sorted({0, 1, size // 2, size - 2, size - 1} & set(range(size))):
        grad = np.ones(size, F32)
        grad[i] = np.nan
        assert opt.step(grad) is False
    assert opt.step(np.ones(size, F32)) is True


@each_optimizer_newton_too
def test_large_finite_gradients_are_finite(case):
    """Their squares overflow; the gradients themselves are finite."""
    opt, _ = twins(case, SHAPES, nonfinite="skip")
    assert opt.step([np.full(s, 1e200) for s in SHAPES]) is True


@each_optimizer_newton_too
def test_gradients_that_overflow_in_the_conversion_are_nonfinite(case):
    """1e300 in float64 becomes infinite for a float32 parameter."""
    opt, _ = twins(case, SHAPES, F32, nonfinite="skip")
    assert opt.step([np.full(s, 1e300) for s in SHAPES]) is False


@sampled_cases
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_nonfinite_error(case, value):
    """The error names the array; parameters, state, counts and gradients do not change."""
    opt, _ = twins(case, SHAPES, nonfinite="error")
    opt.step(grads_of(1, SHAPES))
    before = snapshot(opt)
    grads = nonfinite_grads(2, value)
    with pytest.raises((FloatingPointError, ValueError), match=re.escape("grads[1]")):
        opt.step(grads, zero_grads=True)
    assert_unchanged(opt, before)
    assert_same(grads, nonfinite_grads(2, value), "gradients")
    assert opt.step(grads_of(2, SHAPES)) is True


def test_nonfinite_error_names_the_array():
    a, b, c = params_of(SHAPES)
    good, bad = grads_of(1, SHAPES), nonfinite_grads(1, np.nan)
    opt = schuss.SGD({"layer": {"w": a, "b": b}}, nonfinite="error")
    with pytest.raises((FloatingPointError, ValueError), match=re.escape("grads['layer']['b']")):
        opt.step({"layer": {"w": bad[0], "b": bad[1]}})
    opt = schuss.SGD([{"params": [a]}, {"params": (c, b)}], nonfinite="error")
    with pytest.raises((FloatingPointError, ValueError), match=re.escape("grads[1][1]")):
        opt.step([[good[0]], (good[2], bad[1])])


@each_case_but(is_newton)
def test_nonfinite_propagate(case):
    """A NaN reaches only what depends on it: its element, its row, its layer, or everything with a mean over all."""
    opt, twin = twins(case, SHAPES, nonfinite="propagate", max_grad_norm=None)
    assert opt.step(nonfinite_grads(1, np.nan)) is True
    twin.step(grads_of(1, SHAPES))
    frozen = case.kwargs.get("unrectified") == "frozen" or case.optimizer in ("ADOPT", "SOAP")  # at first
    frozen |= case.kwargs.get("before_first_root") == "wait"
    for name, a, b in zip("abc", parameters(opt), parameters(twin), strict=True):
        bad = int(np.isnan(a).sum())
        row = 5 if "in_out" in case.kwargs.values() or "cols" in case.kwargs.values() else 3
        spread = {0} if frozen else {1, row, a.size} if sums(case) else {1}
        by_all = case.optimizer in ("Adai", "DAdaptSGD", "DoG")
        # DoG's first step may be given, and its estimates may be each layer's own.
        everywhere = {a.size} if by_all and not {"layerwise", "init_eta"} & case.kwargs.keys() else {0}
        assert bad in (spread if name == "b" else everywhere)
        # Cautious updates count the elements that are not NaN; with one that is, no array is projected.
        by_array = case.kwargs.get("cautious") or case.optimizer in ("AdamP", "SGDP")
        if name != "b" or not by_array:
            np.testing.assert_array_equal(a[~np.isnan(a)], b[~np.isnan(a)])


@each_optimizer_newton_too
def test_clipping_propagates_nan(case):
    opt, _ = twins(case, SHAPES, max_grad_norm=1.0)
    for t in (1, 2):  # the first step of some changes the state only
        assert opt.step(nonfinite_grads(t, np.nan)) is True
    assert math.isnan(opt.grad_norm)
    assert all(np.isnan(p).all() for p in parameters(opt))


@each_optimizer_newton_too
def test_skip_with_clipping(case):
    opt, twin = twins(case, SHAPES, max_grad_norm=1.0, nonfinite="skip")
    before = snapshot(opt)
    assert opt.step(nonfinite_grads(1, np.inf)) is False
    assert_same(arrays(opt), before[0])
    opt.step(grads_of(1, SHAPES))
    twin.step(grads_of(1, SHAPES))
    assert_same(arrays(opt), arrays(twin))


@pytest.mark.parametrize("dtype, huge", [(F32, 1e25), (F64, 1e200)])
@pytest.mark.parametrize("name", sorted(set(schuss.OPTIMIZERS) - {"NAG", "Newton"}))
def test_gradients_whose_squares_are_infinite(name, dtype, huge):
    """Which optimizers' parameters become NaN without clipping, as docs/guide/custom_loops.rst says."""
    nan = {"FTRL": 1, "Adai": 1, "Adafactor": 12, "AdafactorHF": 12, "CAME": 12, "Shampoo": 12}
    for bound, expected in ((None, nan.get(name, 0)), (1.0, 0)):
        w = np.ones((4, 3), dtype)
        opt = schuss.OPTIMIZERS[name](w, lr=0.01, max_grad_norm=bound)
        for first in (huge, 0.5):
            grads = np.random.default_rng(1).standard_normal((4, 3)).astype(dtype)
            grads[0, 0] = first
            opt.step(grads)
        assert np.isnan(w).sum() == expected and not np.isinf(w).any()
