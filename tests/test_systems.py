"""What is special to one optimizer: look-ahead points, slow weights, layers, a system to solve.

That they are optimizers like all others is in the conformance table, not here.
"""

import copy
import re
import warnings

import numpy as np
import pytest
import safetensors.numpy
from helpers import (
    CLASSES,
    F32,
    F64,
    arrays,
    assert_close,
    assert_same,
    assert_unchanged,
    cast,
    compute_dtype,
    each_dtype,
    grads_of,
    params_of,
    snapshot,
)
from reference import Reference

import schuss
from schuss import schedules

SHAPES = [(33,), (5, 3), ()]
each_order = pytest.mark.parametrize("order", ["C", "F"])
each_compute_dtype = pytest.mark.parametrize("dtype", [F32, F64], ids=str)


@pytest.fixture(autouse=True)
def threads():
    before = schuss.get_num_threads()
    yield
    schuss.set_num_threads(before)


def refused(error, message):
    """Expects exactly this error."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


# NAG.


def smooth(w):
    """The gradient of a smooth function that is not quadratic: sum(log(cosh(m @ w - 1)))."""
    m = np.random.default_rng(3).standard_normal((20, 8))
    return m.T @ np.tanh(m @ w - 1)


@pytest.mark.parametrize("lr", [0.01, 0.03])
def test_nag_looks_ahead_to_the_iterates_of_nesterov_sgd(lr):
    w, x = np.linspace(-1, 2, 8), np.linspace(-1, 2, 8)
    opt, sgd = schuss.NAG(w, lr=lr, momentum=0.9), schuss.SGD(x, lr=lr, momentum=0.9, nesterov=True)
    seen = []
    for _ in range(50):
        opt.step(lambda: seen.append(w.copy()) or smooth(w))
        assert_close([seen[-1]], [x], 1e-12)
        sgd.step(smooth(x))
    assert np.linalg.norm(smooth(w)) < 0.2 * np.linalg.norm(smooth(seen[0]))


@pytest.mark.parametrize(
    ("options", "c"),
    [({}, 0.05), ({"form": "ema"}, 0.1), ({"lookahead": 0.5}, 0.5), ({"form": "ema", "lookahead": 0.25}, 0.25)],
)
@each_dtype
def test_nag_look_ahead_point(options, c, dtype):
    """p - c*b, rounded to the parameter's dtype; c follows the rate, and the momentum that a schedule sets."""
    w = params_of([(40,)], dtype)[0]
    opt = schuss.NAG({"w": w}, lr=0.1, momentum=0.5, **options)
    for t in range(4):
        b = opt.state_dict()["state"][0]["b"]["w"].astype(F64)
        start, wide = w.copy(), compute_dtype(dtype)
        ahead = (start.astype(wide) - wide.type(c) * b.astype(wide)).astype(dtype)
        opt.step(lambda: {"w": assert_same([w], [ahead]) or grads_of(t, [(40,)], dtype)[0]})  # noqa: B023
        assert t == 0 or not np.array_equal(start, ahead)


def test_nag_follows_schedules_to_the_look_ahead_point():
    cycle = schedules.one_cycle(0.5, 10, momentum=(0.5, 0.9))
    w, seen = np.ones(3), []
    opt = schuss.NAG(w, lr=cycle)
    for t in range(8):
        ahead = w - cycle(t) * cycle.momentum(t) * opt.state_dict()["state"][0]["b"]
        opt.step(lambda: seen.append(w.copy()) or w * 1.0)
        assert_close([seen[-1]], [ahead], 1e-15)


class Interrupted(BaseException):
    """Not even an Exception."""


@each_dtype
def test_nag_is_as_before_when_a_step_fails(dtype):
    """Parameters and state to the last bit: restored, not added back."""
    rng = np.random.default_rng(1)
    params = [cast(rng.standard_normal(s) * 10.0 ** rng.uniform(-8, 4, s), dtype) for s in SHAPES]
    opt = schuss.NAG([{"params": params[:1]}, {"params": params[1:], "lr": 0.3}], lr=0.1, nonfinite="error")

    def grads(t):
        a, b, c = grads_of(t, SHAPES, dtype)
        return [[a], [b, c]]

    def interrupted():
        params[0][...] = 7
        raise Interrupted

    opt.step(lambda: grads(1))
    opt.step(lambda: grads(2))
    before = snapshot(opt)
    params[1].flags.writeable = False
    with pytest.raises(ValueError, match=r"^param_groups\[1\]\['params'\]\[0\] was resized"):
        opt.step(lambda: grads(3))
    params[1].flags.writeable = True
    assert_unchanged(opt, before)
    for closure, error in [
        (interrupted, Interrupted),
        (lambda: grads(3)[:1], ValueError),
        (lambda: [[None], grads(3)[1]], TypeError),
        (lambda: [[grads(3)[0][0] * np.nan], grads(3)[1]], FloatingPointError),
        (lambda: opt.step(lambda: grads(3)), RuntimeError),
        (lambda: opt.load_state_dict(opt.state_dict()), RuntimeError),
    ]:
        with pytest.raises(error):
            opt.step(closure)
        assert_unchanged(opt, before, str(error))
    assert opt.step(lambda: grads(3)) and opt.step_count == 3


@pytest.mark.parametrize("alias", [lambda w: w, lambda w: w[::-1][::-1], lambda w: np.asarray(memoryview(w))])
def test_nag_gradients_that_are_the_parameters(alias):
    """The gradient of |w|^2/2 is w, where the closure has it and not where w goes back to."""
    w, x = np.linspace(-1, 2, 50), np.linspace(-1, 2, 50)
    opt, twin = schuss.NAG([w], lr=0.1), schuss.NAG([x], lr=0.1)
    for _ in range(5):
        opt.step(lambda: [alias(w)])
        twin.step(lambda: [x.copy()])
    assert_same(arrays(opt), arrays(twin))
    with refused(
        ValueError,
        "grads[0] shares memory with a parameter or a state, so zero_grads=True cannot zero it; pass a copy",
    ):
        opt.step(lambda: [alias(w)], zero_grads=True)
    assert_same(arrays(opt), arrays(twin))


def test_nag_restores_to_the_last_bit():
    """NaNs' payloads, zeros' signs, subnormals; also what was made read-only, or got another shape, meanwhile."""
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x80000000, 0x00000001, 0xFF800000], np.uint32)
    w, x = bits.view(F32).copy(), bits.view(F32).copy().reshape(2, 3)
    opt = schuss.NAG([w, x], lr=0.1)
    opt.load_state_dict(opt.state_dict() | {"state": [{"b": [np.ones(6, F32), np.ones((2, 3), F32)]}]})

    def closure():
        assert not np.array_equal(w.view(np.uint32), bits)
        w.flags.writeable = False
        with warnings.catch_warnings():  # NumPy deprecates this way
            warnings.simplefilter("ignore")
            x.shape = (6,)
        raise Interrupted

    with pytest.raises(Interrupted):
        opt.step(closure)
    assert_same([w.view(np.uint32), x.view(np.uint32)], [bits, bits])


def test_nag_is_free_again_when_a_parameter_cannot_be_restored():
    """The closure has given the array other memory; the next step says that, and not that one is under way."""
    w = np.ones(1000, F32)
    opt = schuss.NAG(w, lr=0.1)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^params was resized"):
            opt.step(lambda: w.resize(2000, refcheck=False))
    opt.state_dict()


@pytest.mark.parametrize("grads", [None, {}, 3.0, "w", lambda: None])
def test_nag_closures_that_return_no_gradients(grads):
    for params in (np.ones(3), [np.ones(3)], {"w": np.ones(3)}):
        opt = schuss.NAG(params, lr=0.1)
        opt.step(lambda: params)  # noqa: B023
        _ = opt.grads  # nor are these taken instead
        before = snapshot(opt)
        with pytest.raises((TypeError, ValueError), match=r"^grads"):
            opt.step(lambda: grads)
        assert_unchanged(opt, before)


def test_nag_takes_decay_where_the_parameters_are():
    """The decay of PyTorch's form is that of the look-ahead point, which is the closure's to add."""
    starts = [np.linspace(-1, 2, 8) for _ in range(3)]
    (w, x, y), sgd, options = starts, [], dict(lr=0.02, momentum=0.9)
    inside, outside = schuss.NAG(w, **options), schuss.NAG(x, weight_decay=0.5, **options)
    torch_form = schuss.SGD(y, nesterov=True, weight_decay=0.5, **options)
    for _ in range(5):
        inside.step(lambda: sgd.append(w.copy()) or smooth(w) + 0.5 * w)
        assert_close([sgd[-1]], [y], 1e-12)
        torch_form.step(smooth(y))
        b, here = outside.state_dict()["state"][0]["b"].copy(), x.copy()
        outside.step(lambda: smooth(x))
        b = 0.9 * b + smooth(here - 0.02 * 0.9 * b) + 0.5 * here
        assert_close([x], [here - 0.02 * b], 1e-13)
    assert np.max(abs(w - x)) > 1e-3


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
        assert_same([w], [start])
    assert_same([w], [fast])
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
