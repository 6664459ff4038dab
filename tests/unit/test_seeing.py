"""What a training loop can look at and set: rates, norms, the factor of clipping, counters, and metrics for loggers."""

import copy

import numpy as np
import pytest
from helpers import (
    NAG,
    assert_unchanged,
    build,
    clips,
    each_optimizer_newton_too,
    grads_of,
    params_of,
    refused,
    snapshot,
)

import schuss


def test_lr_is_the_rate_of_the_next_step():
    opt = schuss.SGD(np.zeros(2), lr=0.5)
    assert opt.lr == 0.5
    opt.lr *= 0.5
    assert opt.lr == opt.param_groups[0]["lr"] == 0.25
    opt.lr = lambda step: 1.0 / (1 + step)
    assert opt.lr == 1.0
    opt.step(np.ones(2))
    assert opt.lr == opt.param_groups[0].current("lr") == 0.5
    opt.lr = 0.1  # replaces the schedule
    assert opt.param_groups[0]["lr"] == 0.1
    before = snapshot(opt)
    with refused(ValueError, "lr must be a number >= 0, got -1"):
        opt.lr = -1
    assert opt.lr == 0.1
    assert_unchanged(opt, before)


def test_lr_of_several_groups():
    params = [np.zeros(2), np.zeros(3)]
    opt = schuss.SGD([{"params": params[0]}, {"params": params[1]}], lr=0.5)
    opt.lr = 0.25
    assert [group["lr"] for group in opt.param_groups] == [0.25, 0.25]
    opt.param_groups[1]["lr"] = 0.125
    message = 'lr is [0.25, 0.125] in the groups; read and set opt.param_groups[i]["lr"]'
    with refused(AttributeError, message):
        _ = opt.lr
    with refused(AttributeError, message):
        opt.lr = 0.1
    assert opt.metrics() == {"step": 0, "skipped_steps": 0, "lr/0": 0.25, "lr/1": 0.125}


@pytest.mark.parametrize("wrap", [lambda opt: opt, schuss.Lookahead])
def test_current_values_under_schedules(wrap):
    schedule = schuss.schedules.one_cycle(1.0, 10)
    opt = wrap(schuss.SGD(np.zeros(2), lr=schedule, momentum=0.9, weight_decay=lambda step: 0.1 * step))
    group = opt.param_groups[0]
    for step in range(3):
        assert group.current("lr") == schedule(step) == opt.lr
        assert group.current("momentum") == schedule.momentum(step)
        assert group.current("weight_decay") == 0.1 * step
        assert group.current("nesterov") is False
        opt.step(np.ones(2))
    with pytest.raises(KeyError, match="rate"):
        group.current("rate")
    del opt
    if group._owner() is None:  # it may be part of a cycle
        with refused(RuntimeError, "the optimizer of this group no longer exists"):
            group.current("lr")


@each_optimizer_newton_too
def test_a_tracked_norm_changes_nothing(case):
    shapes = [(33,), (5, 3), ()]
    opt = build(case, params_of(shapes), track_grad_norm=True)
    twin = build(case, params_of(shapes))
    for t in range(3):
        grads = grads_of(t, shapes)
        assert opt.step(grads, grad_scale=2.0) and twin.step(grads, grad_scale=2.0)
        np.testing.assert_allclose(opt.grad_norm, schuss.global_norm(grads) / 2, rtol=1e-15)
        assert (twin.grad_norm is None) is not clips(case)
    assert_unchanged(opt, snapshot(twin))
    assert copy.deepcopy(opt).track_grad_norm
    opt.track_grad_norm = False
    opt.step(grads_of(3, shapes))
    assert (opt.grad_norm is None) is not clips(case)


def test_a_tracked_norm_of_gradients_that_are_not_finite():
    opt, twin = (schuss.SGD([np.zeros(2), np.zeros(2)], lr=1.0, track_grad_norm=track) for track in (True, False))
    bad = [np.array([np.inf, 1.0]), np.array([1.0, 2.0])]
    assert opt.step(bad) and twin.step(bad)
    assert opt.grad_norm == np.inf and opt.clip_factor is None
    assert_unchanged(opt, snapshot(twin))


@pytest.mark.parametrize("kind", [schuss.SGD, NAG, schuss.Adam])
def test_the_clip_factor(kind):
    opt = kind(np.zeros(2), lr=0.1, max_grad_norm=1.0)
    assert opt.clip_factor is None and opt.grad_norm is None
    opt.step(np.array([3.0, 4.0]))
    assert opt.clip_factor == 1.0 / (5.0 + 1e-6)
    opt.max_grad_norm = 10.0  # of the next steps
    assert opt.clip_factor == 1.0 / (5.0 + 1e-6)
    opt.step(np.array([3.0, 4.0]))
    assert opt.clip_factor == 1.0
    assert opt.metrics() == {"step": 2, "skipped_steps": 0, "lr": 0.1, "grad_norm": 5.0, "clip_factor": 1.0}
    opt.max_grad_norm = None
    opt.step(np.array([3.0, 4.0]))
    assert opt.clip_factor is None and set(opt.metrics()) == {"step", "skipped_steps", "lr"}


@pytest.mark.parametrize(("bad", "bound"), [(np.nan, 1.0), (np.nan, np.inf), (np.inf, 1.0), (np.inf, np.inf)])
def test_the_clip_factor_of_gradients_that_are_not_finite(bad, bound):
    """It is the one that the step used."""
    w = np.zeros(1)
    opt = schuss.SGD([w, np.zeros(1)], lr=1.0, max_grad_norm=bound)
    opt.step([np.array([-1.0]), np.array([bad])])
    np.testing.assert_equal(opt.clip_factor, w[0])


def test_metrics_of_a_wrapper_and_after_a_skipped_step():
    """The norm is that of the skipped step's gradients, which nothing has clipped."""
    opt = schuss.Lookahead(schuss.Adam(np.zeros(2), lr=lambda step: 0.1 + step, nonfinite="skip", max_grad_norm=1.0))
    for bad in (np.nan, np.inf):
        opt.step(np.array([3.0, 4.0]))
        opt.step(np.array([bad, 4.0]))
        np.testing.assert_equal(opt.grad_norm, bad)
        assert opt.clip_factor is None
    opt.max_grad_norm, opt.track_grad_norm = None, True
    opt.step(np.array([np.inf, 4.0]))
    assert opt.metrics() == {"step": 2, "skipped_steps": 3, "lr": 2.1, "grad_norm": np.inf}
    opt.nonfinite = "error"
    opt.step(np.array([3.0, 4.0]))
    with pytest.raises(FloatingPointError):
        opt.step(np.array([np.inf, 4.0]))
    assert opt.grad_norm == 5.0
    opt.nonfinite, opt.track_grad_norm = "skip", False
    opt.step(np.array([np.inf, 4.0]))
    assert opt.grad_norm is None


def test_starting_at_another_step():
    asked = []
    opt = schuss.Adam([np.ones(2), np.ones(3)], lr=lambda step: asked.append(step) or 0.1)
    opt.step([np.ones(2), None])
    opt.step_count = 10
    assert opt.step_count == 10 and opt._read_counters() == (10, 0, [10], [])
    state = opt.state_dict()
    opt.step([np.ones(2), np.ones(3)])
    assert asked[-1] == 10
    twin = schuss.Adam([opt.param_groups[0]["params"][0] * 1, np.ones(3)], lr=0.1)
    state["param_groups"][0]["lr"] = 0.1
    twin.load_state_dict(state)
    assert twin.step_count == 10
    around = schuss.Lookahead(schuss.SGD(np.ones(2)), k=3)
    around.step_count = 2
    around.step(np.ones(2))
    assert around.optimizer.step_count == 3
    for wrong in (-1, 1.5, True, 2**63):
        error = ValueError if type(wrong) is int else TypeError
        with refused(error, f"step_count must be a whole number >= 0 and < 2**63, got {wrong!r}"):
            opt.step_count = wrong
    assert opt.step_count == 11


WRONG = {
    "lrate": "AdamW has no attribute 'lrate'; did you mean opt.lr?",
    "learning_rate": "AdamW has no attribute 'learning_rate'; did you mean opt.lr?",
    "weight_decay": "AdamW has no attribute 'weight_decay'; set opt.param_groups[i]['weight_decay']",
    "weightdecay": "AdamW has no attribute 'weightdecay'; set opt.param_groups[i]['weight_decay']",
    "max_grad_nrom": "AdamW has no attribute 'max_grad_nrom'; did you mean opt.max_grad_norm?",
    "zzz": "AdamW has no attribute 'zzz'",
}


@pytest.mark.parametrize("name", WRONG)
def test_unknown_attributes_are_refused(name):
    opt = schuss.AdamW(np.zeros(2))
    with refused(AttributeError, WRONG[name]):
        setattr(opt, name, 0.1)
    with refused(AttributeError, WRONG[name].replace("AdamW", "Lookahead(AdamW)")):
        setattr(schuss.Lookahead(opt), name, 0.1)


def test_attributes_of_groups_are_refused():
    group = schuss.AdamW(np.zeros(2)).param_groups[0]
    with refused(AttributeError, "hyperparameters are items of a group: group['lr'] = ..."):
        group.lr = 0.1
    with pytest.raises(AttributeError, match=r"^a group has no attribute 'lrate'; its items are lr, betas, eps"):
        group.lrate = 0.1
    with pytest.raises(AttributeError, match=r"^a group has no attribute 'rules'"):
        group.rules = []


def test_subclasses_and_methods():
    class Named(schuss.SGD):
        def note(self):
            self.remark = "kept"

    opt = Named(np.zeros(2))
    opt.note()
    assert opt.remark == "kept"
    opt = schuss.SGD(np.zeros(2), lr=1.0)
    calls, step = [], opt.step
    opt.step = lambda *args, **options: calls.append(1) or step(*args, **options)  # as schedulers and profilers do
    assert opt.step(np.ones(2)) and calls == [1]
