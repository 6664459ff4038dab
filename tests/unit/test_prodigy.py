"""Prodigy: one estimate of the distance for all arrays of all groups; frozen groups; saving and loading it.

The conformance table covers what all optimizers share.
"""

import copy

import numpy as np
import pytest
from families.prodigy import PRODIGY, prodigy
from helpers import (
    F64,
    arrays,
    assert_close,
    assert_same,
    assert_unchanged,
    cast,
    grads_of,
    parameters,
    params_of,
    shared,
    snapshot,
    states,
)
from reference import Reference

import schuss

# Sums have blocks of 1024 elements. One task takes an array of up to 32768 elements; larger ones are divided.
SHAPES = [(1,), (1023,), (1025,), (32, 1024), (0,), (32769,), (300, 301)]
SMALL = [(33,), (5, 3), (), (7,)]


def slope(t, shapes, dtype=F64):
    """Gradients of mostly the same direction, so that the estimate grows."""
    return [cast(3 * g + h, dtype) for g, h in zip(grads_of(0, shapes), grads_of(t, shapes), strict=True)]


def take(opt, steps, shapes, dtype=F64):
    """Takes steps with one group, or with one group for each array."""
    for t in steps:
        grads = slope(t, shapes, dtype)
        assert opt.step(grads if len(opt.param_groups) == 1 else [[g] for g in grads])


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_estimate_is_over_all_groups(dtype):
    """It is the same for any number of threads and any division into groups."""
    results = []
    for count in (1, 2, 3):
        schuss.set_num_threads(count)
        opt = schuss.Prodigy(params_of(SHAPES, dtype), **PRODIGY)
        take(opt, range(1, 9), SHAPES, dtype)
        results.append(arrays(opt))
    assert_same(results[1], results[0], "2 threads")
    assert_same(results[2], results[0], "3 threads")
    grouped = schuss.Prodigy([{"params": [p]} for p in params_of(SHAPES, dtype)], **PRODIGY)
    take(grouped, range(1, 9), SHAPES, dtype)
    assert_same(parameters(grouped) + list(shared(grouped).values()), parameters(opt) + list(shared(opt).values()))
    assert shared(opt)["d"] > PRODIGY["d0"]
    if dtype != "bfloat16":
        reference = Reference("Prodigy", params_of(SHAPES, dtype), **PRODIGY)
        for t in range(1, 9):
            reference.step(slope(t, SHAPES, dtype))
        assert_close(parameters(opt), reference.params, 1e-11 if dtype == "float64" else 2e-5)


def joined(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


def test_a_learning_rate_of_zero_freezes_its_group():
    """The group does not change and does not contribute to the estimate; the other groups continue."""
    params = params_of(SMALL)
    opt = schuss.Prodigy([{"params": params[:2]}, {"params": params[2:]}], **PRODIGY)
    state, p = {}, joined(params)
    second = np.arange(p.size) >= joined(params[:2]).size
    before = None
    for t in range(1, 13):
        frozen = 4 <= t <= 8
        opt.param_groups[1]["lr"] = 0.0 if frozen else 1.0
        if t == 4:
            before = copy.deepcopy([a for key, a in states(opt).items() if key[0] == 1] + params[2:])
        grads = slope(t, SMALL)
        opt.step([grads[:2], grads[2:]])
        p = prodigy(state, p, joined(grads), t, **PRODIGY, frozen=second & frozen)
        assert_close([joined(params)], [p], 1e-12, f"step {t}")
        assert_close(list(shared(opt).values()), [state[name] for name in shared(opt)], 1e-12, f"step {t}")
        if t == 8:
            assert_same([a for key, a in states(opt).items() if key[0] == 1] + params[2:], before)
    assert shared(opt)["d"] > PRODIGY["d0"]


def test_a_schedule_that_begins_at_zero():
    """Steps with a learning rate of zero count as steps."""
    params = params_of(SMALL)
    options = PRODIGY | dict(lr=lambda step: 0.25 * min(step, 4), use_bias_correction=True)
    opt, reference = schuss.Prodigy(params, **options), Reference("Prodigy", params, **options)
    start = snapshot(opt)[0]
    for t in range(1, 9):
        opt.step(slope(t, SMALL))
        reference.step(slope(t, SMALL))
        if t == 1:
            assert_same(arrays(opt), start)
        assert_close(params, reference.params, 1e-12, f"step {t}")
    assert opt.step_count == 8


def test_different_learning_rates_are_refused():
    """Groups with different rates would need an estimate each."""
    rates = {0: 1.0, 1: 0.0, 2: 0.5}
    params = params_of(SMALL)
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": rates.get}]
    opt = schuss.Prodigy(groups, lr=1.0, **PRODIGY)
    for t in (1, 2, 3):
        before, grads = snapshot(opt), slope(t, SMALL)
        if t < 3:
            assert opt.step([grads[:2], grads[2:]])
            continue
        with pytest.raises(ValueError, match="lr"):
            opt.step([grads[:2], grads[2:]])
        assert_unchanged(opt, before)


DIFFERENT = {
    "beta3": (schuss.Prodigy, dict(beta3=0.5), "beta3 is 0.2 in one group and 0.5 in another"),
    "beta3 of betas": (schuss.Prodigy, dict(beta3=None, betas=(0.9, 0.25)), "beta3 is 0.2"),
    "d0": (schuss.Prodigy, dict(d0=0.5), "d0 is 0.01 in one group and 0.5 in another"),
    "d_coef": (schuss.Prodigy, dict(d_coef=2.0), "d_coef is 4 in one group and 2 in another"),
    "growth_rate": (schuss.Prodigy, dict(growth_rate=2.0), "growth_rate is inf in one group and 2 in another"),
    "betas": (schuss.DAdaptAdam, dict(betas=(0.9, 0.5)), r"betas\[1\] is 0.999 in one group and 0.5 in another"),
    "DAdaptSGD": (schuss.DAdaptSGD, dict(d0=0.5), "d0 is 1e-06 in one group and 0.5 in another"),
    "DAdaptSGD, lr": (schuss.DAdaptSGD, dict(lr=0.5), "lr is 1 in one group and 0.5 in another"),
    "DoG": (schuss.DoG, dict(reps_rel=0.5), "reps_rel is 1e-06 in one group and 0.5 in another"),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_groups_agree_on_what_the_estimate_is_computed_from(what):
    kind, other, message = DIFFERENT[what]
    params = params_of(SMALL)
    usual = PRODIGY if kind is schuss.Prodigy else {}
    opt = kind([{"params": params[:2]}, {"params": params[2:], **other}], **usual)
    before, grads = snapshot(opt), slope(1, SMALL)
    with pytest.raises(ValueError, match=message):
        opt.step([grads[:2], grads[2:]])
    assert_unchanged(opt, before)
    for name in other:
        opt.param_groups[1][name] = opt.param_groups[0][name]
    assert opt.step([grads[:2], grads[2:]])


def test_groups_may_differ_in_the_rest():
    """In eps and weight decay, and DoG's also in the learning rate, which multiplies."""
    differ = {schuss.Prodigy: dict(eps=0.1), schuss.DoG: dict(lr=0.5), schuss.DAdaptSGD: dict(momentum=0.5)}
    for kind, other in differ.items():
        params = params_of(SMALL)
        opt = kind([{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.1, **other}])
        grads = slope(1, SMALL)
        assert opt.step([grads[:2], grads[2:]])


def test_distances_start_at_the_parameters_of_construction():
    """Not at those of the first step."""
    w, late = np.linspace(-1, 1, 9), np.linspace(2, 3, 4)
    opt = schuss.Prodigy([w], **PRODIGY)
    start = w.copy()
    w += 0.5
    assert_same([opt.state_dict()["state"][0]["p0"][0]], [start])
    reference = Reference("Prodigy", [start], **PRODIGY)
    reference.shared["p0"], reference.params = start.copy(), [w.copy()]
    for t in range(1, 6):
        opt.step(slope(t, [(9,)]))
        reference.step(slope(t, [(9,)]))
        assert_close([w], reference.params, 1e-12, f"step {t}")
    opt.add_param_group({"params": late})
    assert_same([opt.state_dict()["state"][1]["p0"]], [np.linspace(2, 3, 4)])


def test_gradients_of_zero_move_nothing():
    params = params_of(SMALL)
    opt = schuss.Prodigy(params, weight_decay=0.5, **PRODIGY)
    before = snapshot(opt)[0]
    assert opt.step([np.zeros(s) for s in SMALL])
    assert_same(arrays(opt), before)
    take(opt, range(2, 6), SMALL)
    reference = Reference("Prodigy", params_of(SMALL), weight_decay=0.5, **PRODIGY)
    reference.step([np.zeros(s) for s in SMALL])
    for t in range(2, 6):
        reference.step(slope(t, SMALL))
    assert_close(params, reference.params, 1e-12)


REFUSED = {
    "no shared numbers": lambda d: {k: v for k, v in d.items() if k != "shared"},
    "one missing": lambda d: d | {"shared": {k: v for k, v in d["shared"].items() if k != "num"}},
    "one too many": lambda d: d | {"shared": d["shared"] | {"e": np.array(1.0)}},
    "an array": lambda d: d | {"shared": d["shared"] | {"d": np.ones(3)}},
    "no number": lambda d: d | {"shared": d["shared"] | {"d": "far"}},
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_state_changes_nothing(what):
    opt = schuss.Prodigy(params_of(SMALL), **PRODIGY)
    take(opt, range(1, 4), SMALL)
    good = copy.deepcopy(opt.state_dict())
    take(opt, [4], SMALL)
    before = snapshot(opt)
    with pytest.raises((ValueError, TypeError, KeyError)):
        opt.load_state_dict(REFUSED[what](good))
    assert_unchanged(opt, before)
    opt.load_state_dict(good)
    assert opt.step_count == 3 and shared(opt) == good["shared"]


def test_a_reset_restores_the_initial_estimate():
    opt = schuss.Lookahead(schuss.Prodigy([np.ones(3)], d0=1e-3), k=1, pullback="reset")
    opt.step([np.ones(3)])
    assert opt.state_dict()["shared"]["d"] == 1e-3


@pytest.mark.parametrize("kind", [schuss.Prodigy, schuss.DAdaptAdam, schuss.DAdaptSGD])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_the_gradient_of_a_frozen_group_does_not_enter_the_estimate(kind, value):
    results = []
    for frozen in (1.0, value):
        opt = kind([{"params": [np.ones(5)], "lr": 1.0}, {"params": [np.ones(5)], "lr": 0.0}])
        for t in range(1, 5):
            assert opt.step([[np.full(5, 1.0 + t)], [np.full(5, frozen)]])
        assert (parameters(opt)[1] == 1.0).all()
        results.append(arrays(opt) + list(shared(opt).values()))
    assert_same(results[1], results[0])


def test_a_frozen_group_keeps_its_parameters_whatever_its_gradient():
    free, frozen = np.ones(2), np.array([3.0, 4.0])
    opt = schuss.Prodigy([{"params": [free]}, {"params": [frozen], "lr": 0.0}], betas=(0.0, 0.999))
    for _ in range(2):
        opt.step([[free.copy()], [np.array([np.inf, 1.0])]])
    assert frozen.tolist() == [3.0, 4.0] and free[0] < 1
