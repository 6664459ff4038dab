"""Lookahead: the arithmetic of slow weights, its settings, wrong calls, memory maps, interruptions."""

import copy
import threading

import numpy as np
import pytest
import safetensors.numpy
from helpers import (
    CLASSES,
    Interrupted,
    assert_close,
    assert_same,
    assert_unchanged,
    compute_dtype,
    each_dtype,
    grads_of,
    params_of,
    refused,
    snapshot,
)

import schuss


def test_lookahead_defaults():
    assert schuss.Lookahead.__init__.__defaults__ == (5, 0.5, "none")


@pytest.mark.parametrize("pullback", ["none", "reset", "pullback"])
@each_dtype
def test_lookahead_by_hand(pullback, dtype):
    """sync() against NumPy: slow weights have the precision of states, whatever the dtype of the parameters."""
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


@pytest.mark.parametrize(
    "name", [name for name in CLASSES if name in schuss.OPTIMIZERS and not name.startswith(("Ranger", "ScheduleFree"))]
)
def test_lookahead_wraps_any_optimizer(name):
    """Steps are those of the optimizer alone, but every second one moves the parameters to the slow weights."""
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
    another = schuss.Lookahead(opt.optimizer)
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
        with refused(RuntimeError, inside), opt.evaluate():
            pass
        # The wrapped optimizer, and another wrapper around it, refuse too.
        for other in (opt.optimizer, another):
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
    schuss.save(tmp_path / "file", opt)
    assert safetensors.numpy.load_file(tmp_path / "file")["slow[0]['w']"].tolist() == [0.75] * 3
    other = schuss.Lookahead(schuss.SGD({"w": np.zeros(3)}, lr=0.25), k=2)
    schuss.load(tmp_path / "file", other)
    assert_unchanged(other, snapshot(opt))


def test_pullback_applies_to_groups_with_momentum_only():
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
    """An optimizer that loads a state takes its k and alpha, whatever it was constructed with."""
    w, x = np.linspace(-1, 2, 20), np.linspace(-1, 2, 20)
    opt, other = make(w, k=3, alpha=0.8), make(x)
    for t in range(1, 5):
        opt.step(grads_of(t, [(20,)])[0])
    if by == "dict":
        x[...] = w
        other.load_state_dict(copy.deepcopy(opt.state_dict()))
    else:
        schuss.save(tmp_path / "file", opt)
        schuss.load(tmp_path / "file", other)
    assert (other.k, other.alpha, other.pullback) == (3, 0.8, "none")
    for t in range(5, 12):
        opt.step(grads_of(t, [(20,)])[0])
        other.step(grads_of(t, [(20,)])[0])
    assert_unchanged(other, snapshot(opt))


def test_a_state_without_k_keeps_the_optimizers_k():
    """States of older versions have no k."""
    opt, other = (schuss.Lookahead(schuss.SGD(np.ones(3), lr=0.1), k=k, pullback="reset") for k in (3, 2))
    state = {key: value for key, value in opt.state_dict().items() if key not in ("k", "alpha", "pullback")}
    other.load_state_dict(state)
    assert (other.k, other.alpha, other.pullback) == (2, 0.5, "reset")


def test_settings_can_be_assigned():
    w = np.ones(3)
    opt = schuss.Lookahead(schuss.SGD(w, lr=0.25, momentum=0.5), k=2)
    opt.step(np.ones(3))
    opt.k, opt.alpha, opt.pullback = 3, 1.0, "reset"
    before, state = snapshot(opt), opt.state_dict()
    fixed = "pullback cannot change from 'reset' to 'pullback': that needs other state arrays; make a new "
    fixed += "optimizer with pullback='pullback'"
    for name, value, error, message in [
        ("k", 0, ValueError, "k must be a whole number >= 1, got 0"),
        ("k", 2.5, TypeError, "k must be a whole number >= 1, got 2.5"),
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
    assert not np.array_equal(w, np.ones(3)), "k is 3 now: no synchronization after two steps"
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
        (lambda: schuss.Lookahead(opt, k=2.0), TypeError, "k must be a whole number >= 1, got 2.0"),
        (lambda: schuss.Lookahead(opt, k=True), TypeError, "k must be a whole number >= 1, got True"),
        (lambda: schuss.Ranger(np.ones(3), k=None), TypeError, "k must be a whole number >= 1, got None"),
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
            "this is the state of 'SGD', but the optimizer is 'Lookahead(SGD)'; load it into the wrapped optimizer",
        ),
    ]:  # fmt: skip
        with refused(error, message):
            call()
    assert_unchanged(opt, before)


# Memory maps, interruptions, many arrays.

SHAPES = [(5, 3), (33,)]


def mapped(folder, array):
    """A memory map with the values of an array."""
    result = np.memmap(folder / f"{array.size}", array.dtype, "w+", shape=array.shape)
    result[...] = array
    return result


@pytest.mark.parametrize(
    "make",
    [
        lambda w: schuss.Lookahead(schuss.SGD(w, lr=0.1), k=1),
        lambda w: schuss.Lookahead(schuss.SGD(w, lr=0.1, momentum=0.9), k=2, pullback="pullback"),
        lambda w: schuss.Ranger(w, lr=0.1, k=2),
    ],
    ids=["Lookahead", "pullback", "Ranger"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_memory_maps(make, dtype, tmp_path):
    """Memory maps as parameters and gradients give the bits of plain arrays."""
    plain = params_of(SHAPES, dtype)
    maps = [mapped(tmp_path, w) for w in plain]
    opt, twin = make(maps), make(plain)
    for t in range(1, 5):
        grads = grads_of(t, SHAPES, dtype)
        opt.step([g.view(np.memmap) for g in grads])
        twin.step(grads)
    assert_same(maps, plain)


@pytest.mark.parametrize("then", ["step", "sync", "load_state_dict"])
@pytest.mark.parametrize("interrupted", [1, 2])
def test_an_interruption_after_the_fast_step(then, interrupted, monkeypatch):
    """Ctrl-C may arrive after the wrapped optimizer's step. The step counts, so its synchronization must follow."""
    (w,), (x,) = params_of([(40,)]), params_of([(40,)])
    opt, twin = (schuss.Lookahead(schuss.SGD(p, lr=0.1, momentum=0.9), k=2) for p in (w, x))

    def step(grads):
        schuss.SGD.step(opt.optimizer, grads)
        raise Interrupted

    for t in range(1, interrupted + 1):
        twin.step(grads_of(t, [(40,)])[0])
        if t < interrupted:
            opt.step(grads_of(t, [(40,)])[0])
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(opt.optimizer, "step", step)
        opt.step(grads_of(interrupted, [(40,)])[0])
    if then == "load_state_dict":
        w[...] = x
        opt.load_state_dict(twin.state_dict())
    for o in (opt, twin):
        if then == "sync":
            o.sync()
        o.step(grads_of(3, [(40,)])[0])
    assert_unchanged(opt, snapshot(twin))


def test_a_failed_step_leaves_no_pending_synchronization():
    w = np.ones(3)
    opt = schuss.Lookahead(schuss.SGD(w, lr=0.1), k=1)
    with pytest.raises(ValueError, match="shape"):
        opt.step(np.ones(2))
    opt.step(np.ones(3))
    assert_same([w], [np.full(3, 0.95)])


def test_the_state_is_not_read_once_per_array(tmp_path, monkeypatch):
    """Otherwise the time would grow with the square of the number of arrays."""
    opt = schuss.Lookahead(schuss.SGD([np.ones(2) for _ in range(100)], momentum=0.9))
    state, reads, read = opt.state_dict(), [], schuss.Lookahead._states
    monkeypatch.setattr(schuss.Lookahead, "_states", property(lambda o: reads.append(o) or read.fget(o)))
    opt.load_state_dict(state)
    schuss.save(tmp_path / "file", opt)
    schuss.load(tmp_path / "file", opt)
    copy.deepcopy(opt)
    assert 0 < len(reads) < 20
