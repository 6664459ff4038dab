"""RAdam's two phases; Ranger, which is Lookahead around RAdam with centralized gradients."""

import numpy as np
import pytest
from helpers import F32, F64, arrays, assert_close, assert_same, cast, each_dtype, params_of

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


def test_ranger_and_initializers_agree_on_the_outputs():
    """By default, and in each layout: a step leaves the sum over an output's weights where the initializer puts it."""
    for given in ({}, dict(layout="in_out"), dict(layout="out_in")):
        w = schuss.init.xavier_uniform((6, 4), rng=0, dtype=F64, **given)
        axis = 1 if given.get("layout") == "out_in" else 0
        before = w.sum(axis)
        opt = schuss.Ranger(w, lr=0.1, **given)
        opt.step(np.random.default_rng(1).standard_normal(w.shape))
        assert_close([w.sum(axis)], [before], 1e-12)


def test_states_of_ranger_know_their_layout():
    """Those of older versions are of PyTorch's, which was the only one."""
    make = lambda layout: schuss.Ranger(np.ones((2, 3)), layout=layout)  # noqa: E731
    state = make("out_in").state_dict()
    assert state["param_groups"][0].pop("layout") == "out_in"
    make("out_in").load_state_dict(state)
    message = r"layout cannot change from 'in_out' to 'out_in': it is fixed when the optimizer is made"
    with pytest.raises(ValueError, match=message):
        make("in_out").load_state_dict(state)


CONVOLUTION = [(4, 3, 2, 2), (6, 10), (3, 2, 2), (7,), (), (0, 3), (3, 0)]


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("conv_only", [False, True])
@pytest.mark.parametrize("layout", ["in_out", "out_in"])
def test_ranger_is_lookahead_around_radam(dtype, order, conv_only, layout):
    """The gradients are centralized in NumPy; they are multiples of 1/8, so that their sums are exact."""
    rng = np.random.default_rng(4)
    params, want = ([np.asarray(p, order=order) for p in params_of(CONVOLUTION, dtype)] for _ in range(2))
    options = dict(lr=0.1, betas=(0.95, 0.99), eps=1e-5, weight_decay=0.1)
    opt = schuss.Ranger(params, gc_conv_only=conv_only, layout=layout, **options)
    twin = schuss.Lookahead(schuss.RAdam(want, decoupled_weight_decay=True, **options), k=6)
    for _ in range(20):
        grads = [np.asarray(rng.integers(-800, 800, s) / 8, dtype, order=order) for s in CONVOLUTION]
        opt.step(grads)
        twin.step([centered(g, 3 if conv_only else 1, layout) for g in grads])
    assert_same(arrays(opt), arrays(twin))


def centered(g, least, layout):
    if g.ndim <= least or not g.size:
        return g
    axes = range(1, g.ndim) if layout == "out_in" else range(g.ndim - 1)
    mean = g.mean(axis=tuple(axes), keepdims=True, dtype=F64)
    return g - mean.astype(g.dtype)


def test_adabelief_at_the_least_length_that_can_be_rectified():
    """With this beta2 the length approaches 4, where the rectification is 0 / 0."""
    w = np.zeros(3)
    opt = schuss.AdaBelief(w, lr=0.01, betas=(0.9, 0.6), rectify=True, threshold=4.0)
    for _ in range(200):
        opt.step(np.ones(3))
    np.testing.assert_allclose(w, -2.0, rtol=1e-12)  # as SGD with momentum
