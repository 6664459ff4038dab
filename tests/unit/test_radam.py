"""RAdam's two phases; Ranger, which is Lookahead around RAdam with centralized gradients."""

import numpy as np
import pytest
from helpers import F32, F64, arrays, assert_same, cast, each_dtype, params_of

import schuss


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9), (0.5, 0.5), (0.9, 0.99), (0.9, 0.0)])
@pytest.mark.parametrize("threshold", [4.0, 5.0, 50.0])
def test_radam_never_ascends(betas, threshold):
    """With gradients of constant sign, every step of both phases goes downhill."""
    w = np.array([1.0, -1.0])
    opt = schuss.RAdam(w, lr=0.1, betas=betas, threshold=threshold)
    for t in range(100):
        before = w.copy()
        opt.step(np.array([1.0, -1.0]) * (1 + t % 3))
        assert w[0] < before[0] and w[1] > before[1]


@pytest.mark.parametrize("decoupled", [False, True])
@each_dtype
def test_radam_frozen_leaves_parameters_alone(decoupled, dtype):
    w = cast(np.array([1.0, -0.0, np.nan, np.inf, 1e-40, 6e-8, 100.0]), dtype)
    start = w.copy()
    options = dict(lr=0.5, weight_decay=0.5, decoupled_weight_decay=decoupled, unrectified="frozen")
    opt = schuss.RAdam(w, **options)
    for t in range(1, 7):
        opt.step(np.full(7, t, dtype))
        assert (w.tobytes() == start.tobytes()) is (t < 6)
        assert opt.state_dict()["state"][0]["m"][-1] > 0, "moments are updated in frozen steps too"


CONVOLUTION = [(4, 3, 2, 2), (6, 10), (3, 2, 2), (7,), (), (0, 3), (3, 0)]


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("conv_only", [False, True])
def test_ranger_is_lookahead_around_radam(dtype, order, conv_only):
    """The gradients are centralized in NumPy; they are multiples of 1/8, so that their sums are exact."""
    rng = np.random.default_rng(4)
    params, want = ([np.asarray(p, order=order) for p in params_of(CONVOLUTION, dtype)] for _ in range(2))
    options = dict(lr=0.1, betas=(0.95, 0.99), eps=1e-5, weight_decay=0.1)
    opt = schuss.Ranger(params, gc_conv_only=conv_only, **options)
    twin = schuss.Lookahead(schuss.RAdam(want, decoupled_weight_decay=True, **options), k=6)
    for _ in range(20):
        grads = [np.asarray(rng.integers(-800, 800, s) / 8, dtype, order=order) for s in CONVOLUTION]
        opt.step(grads)
        twin.step([centered(g, 3 if conv_only else 1) for g in grads])
    assert_same(arrays(opt), arrays(twin))


def centered(g, least):
    if g.ndim <= least or not g.size:
        return g
    mean = g.sum(axis=tuple(range(1, g.ndim)), keepdims=True, dtype=F64) / (g.size // len(g))
    return g - mean.astype(g.dtype)
