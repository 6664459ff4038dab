"""Sophia's update_hessian: what it averages, in which formats, and what it refuses."""

import numpy as np
import pytest
from helpers import DTYPES, F32, F64, assert_same, assert_unchanged, cast, grads_of, params_of, snapshot

import schuss

KINDS = [schuss.SophiaG, schuss.SophiaH]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
SHAPES = [(33,), (4, 5), ()]


@each_kind
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_it_averages(kind, dtype):
    """Estimates of any dtype, neither scaled nor clipped nor negated."""
    params = params_of(SHAPES, dtype)
    opt = kind(params, betas=(0.9, 0.75), maximize=True, max_grad_norm=1e-3)
    before = [p.copy() for p in params]
    want = [np.zeros(s) for s in SHAPES]
    for t in range(3):
        estimates = [cast(abs(g), DTYPES["float16"]) for g in grads_of(t, SHAPES)]
        opt.update_hessian(estimates)
        want = [0.75 * h + 0.25 * e.astype(F64) for h, e in zip(want, estimates, strict=True)]
    assert_same(params, before)
    assert opt.step_count == 0
    for h, w in zip(opt.state_dict()["state"][0]["h"], want, strict=True):
        np.testing.assert_allclose(h, w, rtol=1e-12 if h.dtype == F64 else 1e-6)


@each_kind
def test_groups_and_other_layouts(kind):
    w, b = params_of([(3, 4), (5,)], F32)
    opt = kind([{"params": {"w": w}}, {"params": [b], "betas": (0.9, 0.5)}])
    estimate = np.arange(12.0).reshape(4, 3).T
    opt.update_hessian([{"w": estimate}, [np.ones(5)]])
    first, second = opt.state_dict()["state"]
    np.testing.assert_allclose(first["h"]["w"], 0.01 * estimate, rtol=1e-6)
    np.testing.assert_allclose(second["h"][0], 0.5)


@each_kind
@pytest.mark.parametrize(
    ("estimate", "error", "message"),
    [
        ([np.ones(3)], ValueError, "estimate"),
        ([np.ones(4), np.ones(2)], ValueError, r"estimate\[0\] has shape \(4,\)"),
        (None, TypeError, "update_hessian needs an estimate"),
    ],
)
def test_what_does_not_fit(kind, estimate, error, message):
    opt = kind([np.ones(3), np.ones(2)])
    before = snapshot(opt)
    with pytest.raises(error, match=message):
        opt.update_hessian(estimate)
    assert_unchanged(opt, before)
    with pytest.raises(ValueError, match="grads"):  # the next step's messages are about gradients again
        opt.step([np.ones(3)])
