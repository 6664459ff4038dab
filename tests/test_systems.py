"""What is special to one optimizer: look-ahead points, slow weights, layers, a system to solve.

That they are optimizers like all others is in the conformance table, not here.
"""

import copy
import threading

import numpy as np
import pytest
import safetensors.numpy
from helpers import (
    CLASSES,
    F32,
    F64,
    Interrupted,
    arrays,
    assert_close,
    assert_same,
    assert_unchanged,
    cast,
    compute_dtype,
    each_dtype,
    grads_of,
    params_of,
    refused,
    snapshot,
)
from reference import Reference

import schuss

each_order = pytest.mark.parametrize("order", ["C", "F"])
each_compute_dtype = pytest.mark.parametrize("dtype", [F32, F64], ids=str)


@pytest.fixture(autouse=True)
def threads():
    before = schuss.get_num_threads()
    yield
    schuss.set_num_threads(before)


# RAdam.


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9), (0.5, 0.5), (0.9, 0.99), (0.9, 0.0)])
@pytest.mark.parametrize("threshold", [4.0, 5.0, 50.0])
def test_radam_never_ascends(betas, threshold):
    """Against gradients of one sign, whichever phase it is in."""
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
        assert opt.state_dict()["state"][0]["m"][-1] > 0, "moments go on"


# Lookahead.


def test_lookahead_defaults():
    assert schuss.Lookahead.__init__.__defaults__ == (5, 0.5, "none")


@pytest.mark.parametrize("pullback", ["none", "reset", "pullback"])
@each_dtype
def test_lookahead_by_hand(pullback, dtype):
    """What sync() does, to the last bit but one: slow weights are as precise as states, whatever the parameters."""
    w, wide = params_of([(40,)], dtype)[0], compute_dtype(dtype)
    opt = schuss.Lookahead(schuss.Adam(w, lr=0.1), k=100, alpha=0.25, pullback=pullback)
    slow, slow_m = w.astype(wide), np.zeros(40, wide)
    for t in range(1, 7):
        assert opt.step(grads_of(t, [(40,)], dtype)[0])
        if t % 2 == 0:
            state = opt.state_dict()["state"][0]
            m, v = state["m"].copy(), state["v"].copy()
            slow = slow + wide.type(0.25) * (w.astype(wide) - slow)
            opt.sync()
            assert_close([state["slow"]], [slow], 4 * np.finfo(wide).eps)
            assert_same([w], [state["slow"].astype(dtype)])
            if pullback == "pullback":
                slow_m = slow_m + wide.type(0.25) * (m - slow_m)
                assert_close([state["slow_m"]], [slow_m], 4 * np.finfo(wide).eps)
                assert_same([state["m"], state["v"]], [state["slow_m"], v])
            else:
                assert set(state) == {"m", "v", "slow"}
                zero = np.zeros(40, wide)
                assert_same([state["m"], state["v"]], [m, v] if pullback == "none" else [zero, zero])
            slow = state["slow"].copy()
            counts = opt.state_dict()["step"], opt.state_dict()["param_groups"][0]["step"]
            assert counts == (t, 0 if pullback == "reset" else t)


@pytest.mark.parametrize("name", [name for name in CLASSES if name in schuss.OPTIMIZERS and name != "Ranger"])
def test_lookahead_goes_around_any_optimizer(name):
    """The same steps as without, but for what happens to the parameters at every second."""
    options = {"lr": 0.1} if name == "LARS" else {}
    w, x = np.linspace(-1, 2, 20), np.linspace(-1, 2, 20)
    opt, twin, slow = schuss.Lookahead(CLASSES[name](w, **options), k=2), CLASSES[name](x, **options), x.copy()
    for t in range(1, 7):
        opt.step(grads_of(t, [(20,)])[0])
        twin.step(grads_of(t, [(20,)])[0])
        if t % 2 == 0:
            x[...] = slow = slow + 0.5 * (x - slow)
    assert_close([w, opt.state_dict()["state"][0]["slow"]], [x, slow], 1e-14)


def test_lookahead_evaluates_at_the_slow_weights(tmp_path):
    w = np.ones(3)
    opt = schuss.Lookahead(schuss.SGD({"w": w}, lr=0.25), k=2)
    start = w.copy()
    opt.step({"w": np.ones(3)})
    fast, state = w.copy(), opt.state_dict()
    with opt.evaluate():
        assert_same([w], [start])
        inside = "the parameters are at the slow weights; leave evaluate() first"
        for call in [
            lambda: opt.step({"w": np.ones(3)}),
            opt.sync,
            lambda: opt.load_state_dict(state),
            lambda: opt.add_param_group({"params": np.ones(2)}),
            lambda: schuss.save(tmp_path / "file", opt),
        ]:
            with refused(RuntimeError, inside):
                call()
        with refused(RuntimeError, "evaluate() is under way already"), opt.evaluate():
            pass
        # Nor behind its back, by the optimizer inside or by another around that.
        for other in (opt.optimizer, schuss.Lookahead(opt.optimizer)):
            with pytest.raises(RuntimeError, match=r"^this optimizer is in the middle of a step"):
                other.step({"w": np.ones(3)})
        assert opt.state_dict()["step"] == 1
        assert_same([w], [start])
    assert_same([w], [fast])
    context = opt.evaluate()
    threads = [
        threading.Thread(target=call) for call in (context.__enter__, lambda: context.__exit__(None, None, None))
    ]
    for thread, values in zip(threads, (start, fast), strict=True):
        thread.start()
        thread.join()
        assert_same([w], [values])
    with pytest.raises(Interrupted), opt.evaluate():
        raise Interrupted
    assert_same([w], [fast])
    opt.step({"w": np.ones(3)})
    assert_same([w], [np.full(3, 0.75)])
    schuss.save(tmp_path / "file", opt, include_params=True)
    assert safetensors.numpy.load_file(tmp_path / "file")["slow[0]['w']"].tolist() == [0.75] * 3
    other = schuss.Lookahead(schuss.SGD({"w": np.zeros(3)}, lr=0.25), k=2)
    schuss.load(tmp_path / "file", other, include_params=True)
    assert_unchanged(other, snapshot(opt))


def test_lookahead_pulls_back_what_has_momentum():
    opt = schuss.Lookahead(schuss.SGD([np.ones(2)], momentum=0.9), k=1, pullback="pullback")
    opt.add_param_group({"params": np.ones(3), "momentum": 0.0})
    other = copy.deepcopy(opt)
    for o in (opt, other):
        assert o.step([[np.ones(2)], np.ones(3)])
    assert_unchanged(other, snapshot(opt))
    assert [list(state) for state in opt.state_dict()["state"]] == [["b", "slow", "slow_b"], ["slow"]]


AROUND = [
    lambda w, **given: schuss.Lookahead(schuss.AdamW(w, lr=0.1), **given),
    lambda w, **given: schuss.Ranger(w, lr=0.1, **given),
]


@pytest.mark.parametrize("make", AROUND, ids=["Lookahead", "Ranger"])
@pytest.mark.parametrize("by", ["dict", "file"])
def test_k_and_alpha_are_saved(make, by, tmp_path):
    """A state from k=3 goes on as k=3, whatever the optimizer that takes it was made with."""
    w, x = np.linspace(-1, 2, 20), np.linspace(-1, 2, 20)
    opt, other = make(w, k=3, alpha=0.8), make(x)
    for t in range(1, 5):
        opt.step(grads_of(t, [(20,)])[0])
    if by == "dict":
        x[...] = w
        other.load_state_dict(copy.deepcopy(opt.state_dict()))
    else:
        schuss.save(tmp_path / "file", opt, include_params=True)
        schuss.load(tmp_path / "file", other, include_params=True)
    assert (other.k, other.alpha, other.pullback) == (3, 0.8, "none")
    for t in range(5, 12):
        opt.step(grads_of(t, [(20,)])[0])
        other.step(grads_of(t, [(20,)])[0])
    assert_unchanged(other, snapshot(opt))


def test_a_state_without_k_leaves_it():
    """As states were before it was part of them."""
    opt, other = (schuss.Lookahead(schuss.SGD(np.ones(3), lr=0.1), k=k, pullback="reset") for k in (3, 2))
    state = {key: value for key, value in opt.state_dict().items() if key not in ("k", "alpha", "pullback")}
    other.load_state_dict(state)
    assert (other.k, other.alpha, other.pullback) == (2, 0.5, "reset")


def test_settings_of_lookahead():
    w = np.ones(3)
    opt = schuss.Lookahead(schuss.SGD(w, lr=0.25, momentum=0.5), k=2)
    opt.step(np.ones(3))
    opt.k, opt.alpha, opt.pullback = 3, 1.0, "reset"
    before, state = snapshot(opt), opt.state_dict()
    fixed = "pullback cannot change from 'reset' to 'pullback': that needs other state arrays; make a new optimizer"
    for name, value, error, message in [
        ("k", 0, ValueError, "k must be a whole number >= 1, got 0"),
        ("k", 2.5, ValueError, "k must be a whole number >= 1, got 2.5"),
        ("alpha", 2, ValueError, "alpha must be a number > 0 and <= 1, got 2"),
        ("alpha", np.nan, ValueError, "alpha must be a number > 0 and <= 1, got nan"),
        ("pullback", "all", ValueError, "pullback must be 'none' or 'reset' or 'pullback', got 'all'"),
        ("pullback", "pullback", ValueError, fixed),
    ]:
        with refused(error, message):
            setattr(opt, name, value)
        with refused(error, message.replace(name, f"state['{name}']", 1)):
            opt.load_state_dict(state | {name: value, "step": 7})
        assert_unchanged(opt, before)
    assert (opt.k, opt.alpha, opt.pullback) == (3, 1.0, "reset")
    opt.step(np.ones(3))
    assert not np.array_equal(w, np.ones(3)), "the second step is not the third"
    fast = w - 0.25 * (0.5 * opt.state_dict()["state"][0]["b"] + 1)
    opt.step(np.ones(3))
    assert_close([w], [fast], 1e-15)
    assert not opt.state_dict()["state"][0]["b"].any()


def test_lookahead_wrong_calls():
    opt = schuss.SGD(np.ones(3), momentum=0.9)
    before = snapshot(opt)
    nested = "Lookahead cannot wrap another Lookahead: give one of them k and alpha to suit"
    for call, error, message in [
        (lambda: schuss.Lookahead(schuss.Lookahead(opt)), TypeError, nested),
        (lambda: schuss.Lookahead(schuss.Ranger(np.ones(3))), TypeError, nested),
        (lambda: schuss.Lookahead(np.ones(3)), TypeError, "Lookahead wraps an optimizer, got ndarray of shape (3,)"),
        (lambda: schuss.Lookahead(opt, k=0), ValueError, "k must be a whole number >= 1, got 0"),
        (lambda: schuss.Lookahead(opt, k=2.0), ValueError, "k must be a whole number >= 1, got 2.0"),
        (lambda: schuss.Lookahead(opt, k=True), ValueError, "k must be a whole number >= 1, got True"),
        (lambda: schuss.Ranger(np.ones(3), k=None), ValueError, "k must be a whole number >= 1, got None"),
        (lambda: schuss.Lookahead(opt, alpha=0.0), ValueError, "alpha must be a number > 0 and <= 1, got 0.0"),
        (lambda: schuss.Lookahead(opt, alpha=1.5), ValueError, "alpha must be a number > 0 and <= 1, got 1.5"),
        (lambda: schuss.Lookahead(opt, alpha="1"), TypeError, "alpha must be a number > 0 and <= 1, got '1'"),
        (
            lambda: schuss.Lookahead(opt, pullback="all"), ValueError,
            "pullback must be 'none' or 'reset' or 'pullback', got 'all'",
        ),
        (
            lambda: schuss.Lookahead(schuss.SGD(np.ones(3)), pullback="pullback"), ValueError,
            'pullback="pullback" needs a momentum, and SGD here has none',
        ),
        (
            lambda: schuss.Lookahead(opt).load_state_dict(opt.state_dict()), ValueError,
            "this is the state of 'SGD', but the optimizer is 'Lookahead(SGD)'",
        ),
    ]:  # fmt: skip
        with refused(error, message):
            call()
    assert_unchanged(opt, before)


# Ranger.

CONVOLUTION = [(4, 3, 2, 2), (6, 10), (3, 2, 2), (7,), (), (0, 3), (3, 0)]


@each_compute_dtype
@each_order
@pytest.mark.parametrize("conv_only", [False, True])
def test_ranger_is_lookahead_around_radam(dtype, order, conv_only):
    """On gradients centralized by hand; they are eighths, so that their sums are exact."""
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


# LARS and LAMB.

LAYERWISE = {
    "LARS": dict(lr=0.1, weight_decay=0.01, trust_coefficient=0.1),
    "LAMB": dict(lr=0.01, max_grad_norm=None),
}
each_layerwise = pytest.mark.parametrize("name", LAYERWISE)
# Blocks of 1024 elements; up to 32768 one task takes an array through both phases, above they are two regions.
LAYERS = [(1,), (1023,), (1025,), (32, 1024), (32769,), (300, 301), (0,)]


@each_layerwise
@each_dtype
@each_order
def test_layers_of_all_sizes(name, dtype, order):
    """The equations, with any number of threads to the same bits, and each layer as if it were alone."""
    params = [np.asarray(p, order=order) for p in params_of(LAYERS, dtype)]
    alone = [p.copy("K") for p in params]
    grads = [[np.asarray(g, order=order) for g in grads_of(t, LAYERS, dtype)] for t in (1, 2, 3)]
    reference = Reference(name, params, **LAYERWISE[name])
    results = []
    for count in (1, 2, 3):
        schuss.set_num_threads(count)
        own = [p.copy("K") for p in params]
        opt = getattr(schuss, name)(own, **LAYERWISE[name])
        for g in grads:
            given = [a.copy("K") for a in g]
            opt.step(given, zero_grads=count > 1)
            assert count == 1 or not any(a.any() for a in given)
        results.append(arrays(opt))
    assert_same(results[1], results[0], "2 threads")
    assert_same(results[2], results[0], "3 threads")
    for p, own in zip(alone, zip(*grads, strict=True), strict=True):
        opt = getattr(schuss, name)(p, **LAYERWISE[name])
        for g in own:
            opt.step(g)
    assert_same(alone, results[0][: len(alone)], "alone")
    if dtype == compute_dtype(dtype):
        for g in grads:
            reference.step(g)
        assert_close(results[0][: len(params)], reference.params, 1e-12 if dtype == F64 else 2e-5)


@each_layerwise
@pytest.mark.parametrize("size", [100, 40_000])
def test_norms_of_zero(name, size):
    """The ratio is 1 for a layer that is zero, or whose direction is."""
    rng = np.random.default_rng(2)
    g, p = rng.standard_normal(size), np.zeros(size)
    getattr(schuss, name)(p, **LAYERWISE[name]).step(g)
    assert_close([p], [-0.1 * g if name == "LARS" else -0.01 * g / (abs(g) + 1e-6)], 1e-13)
    p = rng.standard_normal(size)
    before = p.copy()
    getattr(schuss, name)(p, **LAYERWISE[name] | {"weight_decay": 0.0, "always_adapt": True}).step(np.zeros(size))
    assert_same([p], [before])


def test_a_rate_of_zero_clips_nothing():
    p = np.ones(5)
    schuss.LARS(p, lr=0.0, always_adapt=True, trust_clip=True).step(np.ones(5))
    assert_same([p], [np.ones(5)])
