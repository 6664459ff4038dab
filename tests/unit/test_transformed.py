"""The wrapper Transformed around any optimizer: state, groups, missing gradients, failures, wrong calls."""

import copy

import numpy as np
import pytest
from helpers import assert_same, assert_unchanged, refused, snapshot
from transform_cases import EACH, each_transform, starts, waves
from ways_to_resume import each_way_to_resume, resumed

import schuss
from schuss import transforms as tf

CHANGED = (
    "params[0] was resized, re-pointed, retyped or made read-only after the optimizer was made; make a new optimizer"
)


@each_way_to_resume
@each_transform
def test_resume(transform, how, tmp_path):
    def make(params):
        return schuss.Transformed(schuss.AdamW(params, lr=0.1, nonfinite="skip"), [tf.clip(50.0), transform])

    params = starts(np.float32)
    opt = make(params)
    for t in range(1, 5):
        opt.step(waves(t, "NaN" if isinstance(transform, tf.apply_if_finite) else ""))
    other = resumed(opt, how, lambda: make(copy.deepcopy(params)), tmp_path / "file")
    for t in range(5, 9):
        assert opt.step(waves(t)) == other.step(waves(t))
    assert_unchanged(other, snapshot(opt))


@each_transform
def test_around_anything(transform):
    """Groups, other wrappers, small states, scaling, zeroing."""

    def make(params):
        groups = [{"params": params[0]}, {"params": params[1], "lr": 0.01}]
        return schuss.Lookahead(schuss.AdamW(groups, lr=0.1, state_dtype="bfloat16", max_grad_norm=1.0), k=2)

    params, twins = starts(np.float32), starts(np.float32)
    opt = schuss.EMA(schuss.Transformed(make(params), [transform]))
    twin = schuss.Transformed(schuss.EMA(make(twins)), [transform])
    for t in range(1, 8):
        scaled = [8 * g for g in waves(t)]
        taken = opt.step(scaled, grad_scale=8.0, zero_grads=True)
        assert taken == twin.step(waves(t)) and not any(g.any() for g in scaled)
    assert_same(params, twins)


@each_transform
def test_a_failure_changes_nothing(transform):
    params = starts()
    opt = schuss.Transformed(schuss.AdamW(params, lr=0.1, nonfinite="error"), [transform])
    for t in range(1, 3):
        opt.step(waves(t))
    before = snapshot(opt), opt.state_dict()["counts"]
    for bad in ([np.ones((4, 3)), np.ones(4)], [np.ones((4, 3))], [np.ones((4, 3)), "x"]):
        with pytest.raises((TypeError, ValueError)):
            opt.step(bad)
    grads = waves(3)
    grads[1][:] = np.inf
    if not isinstance(transform, (tf.apply_if_finite, tf.clip)):
        with pytest.raises(FloatingPointError):
            opt.step(grads)
    assert_unchanged(opt, before[0])
    assert opt.state_dict()["counts"] == before[1]


@pytest.mark.parametrize("transform", [one for one in EACH if not isinstance(one, tf.accumulate)], ids=str)
def test_missing_gradients(transform):
    """What an array without a gradient had before changes nothing, and it stays."""
    (p, q), (twin, _) = starts(), starts()
    both, alone = (schuss.Transformed(schuss.SGD(own, lr=0.1), [transform]) for own in ([p, q], [twin]))
    both.step(waves(1))
    twin[:], before = p, q.copy()
    alone.optimizer.step_count = 1
    both.step([waves(2)[0], None])
    alone.step([waves(2)[0]])
    assert_same([p, q], [twin, before])


@pytest.mark.parametrize("transform", [one for one in EACH if not isinstance(one, tf.accumulate)], ids=str)
def test_gradients_come_and_go(transform):
    """What is prepared for some gradients is not used for others."""
    params, twins = starts(), starts()
    opt = schuss.Transformed(schuss.SGD(params, lr=0.1), [tf.clip(9.0), transform])
    for t, there in enumerate(["both", "one", "one", "other", "both", "both", "none", "other", "one"]):
        g = waves(t + 1)
        grads = [g[0] if there in ("one", "both") else None, g[1] if there in ("other", "both") else None]
        fresh = schuss.Transformed(schuss.SGD(twins, lr=0.1), [tf.clip(9.0), transform])
        fresh.step_count = t
        assert opt.step(grads) == fresh.step(grads)
        assert_same(params, twins)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy deprecates setting array attributes
@pytest.mark.parametrize("steps", [0, 1])
@each_transform
def test_a_changed_parameter(transform, steps):
    """It is named, whether the work is prepared or not; once it is as it was, so are steps."""
    params, twins = starts(), starts()
    opt, twin = (schuss.Transformed(schuss.SGD(own, lr=0.1), [tf.clip(9.0), transform]) for own in (params, twins))
    for t in range(1, 4):
        if t > steps:
            params[0].shape = (12,)
            with refused(ValueError, CHANGED):
                opt.step([waves(t)[0].reshape(12), waves(t)[1]])
            params[0].shape = (4, 3)
        assert opt.step(waves(t)) == twin.step(waves(t))
    assert_same(params, twins)


def test_a_resized_array_of_a_subclass():
    """Its memory is gone."""
    w = type("Sub", (np.ndarray,), {})(1 << 20)
    w[:] = 1.0
    opt = schuss.Transformed(schuss.SGD([w], lr=0.1), [tf.agc(0.1)])
    opt.step([np.ones(1 << 20)])
    w.resize(3, refcheck=False)
    with refused(ValueError, CHANGED):
        opt.step([np.ones(1 << 20)])


class Editing(schuss.EMA):
    """Its step replaces an array in the structure that it is given, which it keeps."""

    def step(self, grads):
        self.given = list(grads)
        grads[0] = grads[0] * 0.5
        return super().step(grads)


def test_what_a_wrapped_step_does_with_gradients():
    params, twins = starts(), starts()
    inner = Editing(schuss.SGD(params, lr=0.1))
    opt, twin = schuss.Transformed(inner, []), schuss.SGD(twins, lr=0.1)
    for t in range(1, 4):
        opt.step(waves(t))
        twin.step([waves(t)[0] * 0.5, waves(t)[1]])
    assert_same(params, twins)


def test_gradients_that_were_changed_before():
    """A step given the arrays that the last step changed reads all of them before it writes any."""
    params, twins = [np.ones(3), np.ones(3)], [np.ones(3), np.ones(3)]
    inner = Editing(schuss.SGD(params, lr=0.1))
    opt, twin = schuss.Transformed(inner, []), schuss.SGD(twins, lr=0.1)
    one, two = np.arange(3.0), np.arange(3.0, 6.0)
    opt.step([one, two])
    opt.step(inner.given[::-1])
    twin.step([one * 0.5, two])
    twin.step([two * 0.5, one])
    assert_same(params, twins)


@each_transform
def test_a_group_is_added(transform):
    """Also after steps, which prepare the work."""
    params, twins = starts(), starts()
    opt = schuss.Transformed(schuss.SGD([params[0]], lr=0.1), [transform])
    opt.step([np.zeros((4, 3))])
    opt.load_state_dict({**opt.state_dict(), "counts": [0]})
    params[0][:] = twins[0]
    opt.step_count = 0
    opt.add_param_group({"params": [params[1]]})
    twin = schuss.Transformed(schuss.SGD([{"params": [array]} for array in twins], lr=0.1), [transform])
    for t in range(1, 5):
        grads = [[g] for g in waves(t)]
        assert opt.step(grads) == twin.step(grads)
    assert_same(params, twins)


def test_a_skipped_step_zeroes_gradients():
    for transform in (tf.clip_by_block_rms(1.0), tf.apply_if_finite(1)):
        w = np.ones(2)
        opt = schuss.Transformed(schuss.SGD(w, nonfinite="skip"), [transform])
        grads = np.array([np.nan, 1.0])
        assert not opt.step(grads, zero_grads=True)
        assert not grads.any() and (w == 1).all()


def test_zeroing_needs_writable_gradients():
    w, grads = np.ones(2), np.ones(2)
    opt = schuss.Transformed(schuss.SGD(w), [])
    grads.flags.writeable = False
    with refused(ValueError, "grads is read-only, so it cannot be zeroed; pass a copy"):
        opt.step(grads, zero_grads=True)
    assert (w == 1).all() and opt.step(grads)


def test_counters_of_other_transforms_are_refused():
    def saved(*transforms, calls=3):
        opt = schuss.Transformed(schuss.SGD(np.zeros(1), lr=1.0), transforms)
        for _ in range(calls):
            opt.step(np.ones(1))
        return opt.state_dict()

    w = np.zeros(1)
    opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [tf.accumulate(2)])
    before = snapshot(opt)
    same = "make the optimizer with the same transforms"
    with refused(ValueError, f"state['counts'][0] is 3, which accumulate(k=2) never counts; {same}"):
        opt.load_state_dict(saved(tf.accumulate(4)))
    assert_unchanged(opt, before)
    opt.load_state_dict(saved(tf.accumulate(4), calls=1))
    assert opt.step(np.array([3.0])) and w == -2.0
    opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [tf.clip(1.0), tf.accumulate(2)])
    with refused(ValueError, f"state['counts'][0] is 1, which clip(max_delta=1.0) never counts; {same}"):
        opt.load_state_dict(saved(tf.accumulate(2), tf.apply_if_finite(1), calls=1))


def test_wrong_calls():
    w = np.ones(2)
    for call, error, message in [
        (lambda: schuss.Transformed(w, []), TypeError, "Transformed wraps an optimizer, got ndarray of shape (2,)"),
        (lambda: schuss.Transformed(schuss.SGD(w), tf.clip(1.0)), TypeError,
         "transforms must be a list, such as [schuss.transforms.clip(1.0)], got clip(max_delta=1.0)"),
        (lambda: schuss.Transformed(schuss.SGD(w), [1]), TypeError,
         "transforms[0] must be one of schuss.transforms, got 1"),
        (lambda: schuss.Transformed(schuss.SGD(w), [tf.accumulate(2)] * 2), ValueError,
         "transforms has more than one accumulate; use one"),
        (lambda: schuss.Transformed(schuss.NAG(w), []), TypeError,
         "Transformed wraps an optimizer whose step takes gradients, not NAG"),
        (lambda: schuss.Transformed(schuss.SAM(schuss.SGD(w)), []), TypeError,
         "Transformed wraps an optimizer whose step takes gradients, not SAM(SGD)"),
        (lambda: schuss.Transformed(schuss.SGD(w), [tf.clip(1.0)]).load_state_dict(
            schuss.Transformed(schuss.SGD(w.copy()), []).state_dict()), ValueError,
         "state['counts'] has 0 entries, but there are 1 transforms; make the optimizer with the same transforms"),
    ]:  # fmt: skip
        with refused(error, message):
            call()
