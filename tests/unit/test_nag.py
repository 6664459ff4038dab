"""NAG: look-ahead points, and parameters that are restored to the last bit.

The conformance table covers what all optimizers share.
"""

import contextlib
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from helpers import (
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

import schuss
from schuss import schedules

SHAPES = [(33,), (5, 3), ()]


def smooth(w):
    """The gradient of sum(log(cosh(m @ w - 1))), a smooth function that is not quadratic."""
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
    """It is p - c*b, rounded to the parameter's dtype; c follows the learning rate and the scheduled momentum."""
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


def test_nag_calls_a_schedule_once_per_step():
    """Also after a failed step, and with groups that have no schedule."""
    asked, w, x = [], np.ones(3), np.ones(2)
    opt = schuss.NAG([{"params": w, "lr": lambda step: asked.append(step) or 0.1}, {"params": x}], lr=0.5)
    for closure in [lambda: [w * 1, x * 1], lambda: None, lambda: [w * 1, x * 1]]:
        with contextlib.suppress(TypeError):
            opt.step(closure)
    assert asked == [0, 1, 1]


def test_a_group_keeps_its_arrays_when_the_callers_list_changes():
    """The group stores its arrays in a tuple of its own."""
    w, x, given = np.ones(3), np.full(3, 5.0), []
    given.append(w)
    opt = schuss.NAG([{"params": given}], lr=0.5)
    assert type(opt.param_groups[0]["params"]) is tuple and opt.param_groups[0]["params"][0] is w
    given.append(x)
    for _ in range(2):
        opt.step(lambda: [[np.ones(3)]])
    assert_close([w, x], [np.full(3, -0.45), np.full(3, 5.0)], 1e-15)


@each_dtype
def test_a_failed_step_changes_nothing(dtype):
    """Parameters and state are restored from copies; adding the difference back would round."""
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
        (lambda: [[3.0], grads(3)[1]], TypeError),
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
    """The gradient of |w|^2/2 is w itself, with the values of the look-ahead point and not those of the restored w."""
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy deprecates setting array attributes
def test_nag_restores_to_the_last_bit():
    """NaN payloads, signed zeros, subnormals; also if the closure made an array read-only or changed its shape."""
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x80000000, 0x00000001, 0xFF800000], np.uint32)
    w, x = bits.view(F32).copy(), bits.view(F32).copy().reshape(2, 3)
    opt = schuss.NAG([w, x], lr=0.1)
    opt.load_state_dict(opt.state_dict() | {"state": [{"b": [np.ones(6, F32), np.ones((2, 3), F32)]}]})

    def closure():
        assert not np.array_equal(w.view(np.uint32), bits)
        w.flags.writeable = False
        x.shape = (6,)
        raise Interrupted

    with pytest.raises(Interrupted):
        opt.step(closure)
    assert_same([w.view(np.uint32), x.view(np.uint32)], [bits, bits])


def test_nag_reports_a_parameter_that_cannot_be_restored():
    """The closure reallocated the array. The next step says so too, instead of saying that a step is under way."""
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
        _ = opt.grads  # the step must not use these buffers instead
        before = snapshot(opt)
        with pytest.raises((TypeError, ValueError), match=r"^grads"):
            opt.step(lambda: grads)
        assert_unchanged(opt, before)


def test_weight_decay_uses_the_restored_parameters():
    """PyTorch's form decays at the look-ahead point instead; the closure can add that."""
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


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("dtype", [F32, ml_dtypes.bfloat16])
def test_a_step_allocates_no_arrays(dtype, state_dtype):
    w, g = np.ones(100_000, dtype), np.ones(100_000, dtype)
    opt = schuss.NAG(w, lr=0.1, state_dtype=state_dtype, master_weights=dtype != F32)
    opt.step(lambda: g)  # allocates the parameter backup
    tracemalloc.start()
    try:
        opt.step(lambda: g)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()
