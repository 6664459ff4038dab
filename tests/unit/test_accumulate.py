"""The transform accumulate: one step with the mean of several gradients, whatever happens in between."""

import numpy as np
import pytest
from helpers import assert_same, assert_unchanged, refused, snapshot
from transform_cases import starts, waves

import schuss
from schuss import transforms as tf


def test_accumulate():
    """As the optimizer with the mean of three gradients; in between nothing moves and no step counts."""
    params, twins = starts(), starts()
    opt = schuss.Transformed(schuss.AdamW(params, lr=0.1), [tf.accumulate(3), tf.clip(1.0)])
    twin = schuss.AdamW(twins, lr=0.1)
    for t in range(1, 10):
        assert opt.step(waves(t)) == (t % 3 == 0)
        if t % 3 == 0:
            means = [sum(three) / 3 for three in zip(waves(t - 2), waves(t - 1), waves(t), strict=True)]
            twin.step([np.clip(mean, -1.0, 1.0) for mean in means])
        for p, q in zip(params, twins, strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-12)
        assert opt.step_count == twin.step_count == t // 3
    assert opt.state_dict()["counts"] == [0, 0]


def test_accumulate_needs_all():
    alone = schuss.Transformed(schuss.SGD([np.ones(2)]), [tf.accumulate(2)])
    with refused(
        TypeError, "grads[0] is None, but accumulate needs a gradient for each array; leave out what is frozen"
    ):
        alone.step([None])
    params = starts()
    opt = schuss.Transformed(schuss.SGD(params, lr=0.1), [tf.apply_if_finite(2), tf.accumulate(2)])
    opt.step(waves(1))
    before = snapshot(opt)
    message = "grads[1] is None, but accumulate needs a gradient for each array; leave out what is frozen"
    for grad in (waves(2)[0], np.full((4, 3), np.nan)):
        with refused(TypeError, message):
            opt.step([grad, None])
        assert_unchanged(opt, before)


def test_a_group_is_not_added_to_a_mean():
    w, x = np.zeros(1), np.zeros(1)
    opt = schuss.Transformed(schuss.SGD([{"params": w}], lr=1.0), [tf.accumulate(2)])
    opt.step([np.ones(1)])
    with pytest.raises(ValueError, match=r"^gradients have been accumulated for the next step, and new arrays have"):
        opt.add_param_group({"params": x})
    opt.step([np.ones(1)])
    opt.add_param_group({"params": x})
    for _ in range(2):
        opt.step([np.ones(1), np.ones(1)])
    assert (w, x) == (-2.0, -1.0)


def test_accumulation_begins_anew_after_a_skipped_step():
    """A NaN in the mean does not stay in it."""
    w = np.ones(1)
    opt = schuss.Transformed(schuss.SGD(w, lr=0.5, nonfinite="skip"), [tf.accumulate(2)])
    grads = [np.array([g]) for g in (np.nan, 1.0, 1.0, 3.0)]
    assert [opt.step(g) for g in grads] == [False, False, False, True]
    assert w == 0.0 and opt.skipped_steps == 1


def test_a_nan_does_not_get_into_the_mean():
    w = np.ones(2)
    opt = schuss.Transformed(schuss.SGD({"w": w}, lr=1.0, nonfinite="error"), [tf.accumulate(2)])
    assert not opt.step({"w": np.array([1.0, 3.0])})
    before = snapshot(opt)
    for bad in (np.nan, np.inf):
        with refused(FloatingPointError, "grads['w'] has a NaN or infinity, first at (1,); nothing was updated"):
            opt.step({"w": np.array([1.0, bad])})
        assert_unchanged(opt, before)
    assert opt.step({"w": np.array([3.0, 1.0])})
    assert_same([w], [np.array([-1.0, -1.0])])


def test_nothing_accumulates_where_there_are_no_steps():
    inner = schuss.ScheduleFreeSGD(np.ones(2), lr=0.1)
    opt = schuss.Transformed(inner, [tf.accumulate(2)])
    inner.eval()
    with refused(RuntimeError, "the parameters are those for evaluation; call train() before the next step"):
        opt.step(np.ones(2))
    inner.train()
    assert not opt.step(np.ones(2)) and opt.step(np.ones(2))
    base = schuss.SGD(np.ones(2), lr=0.1)
    beside, opt = schuss.EMA(base), schuss.Transformed(base, [tf.accumulate(2)])
    with beside.swap(), pytest.raises(RuntimeError, match=r"have other values inside swap\(\)"):
        opt.step(np.ones(2))
    assert not opt.step(np.ones(2)) and opt.step(np.ones(2))
