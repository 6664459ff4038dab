"""Learning-rate schedules in optimizers: resuming, scheduled momentum, independent decay, schedules with state."""

import copy
import json
import math
import pickle
import re

import numpy as np
import pytest
from cases import schedule as plain
from helpers import assert_unchanged, snapshot
from schedule_cases import COPIES, each_schedule

import schuss
from schuss import schedules as sch


def gradient(t):
    return np.random.default_rng([5, t]).standard_normal(33)


def run(opt, steps):
    for t in steps:
        opt.step(gradient(t))
    return opt


OPTIMIZERS = {
    "SGD": dict(momentum=0.5),
    "SGD, nesterov": dict(momentum=0.5, nesterov=True),
    "SGD, ema": dict(momentum=0.5, momentum_form="ema", debias=True, weight_decay=0.1),
    "RMSprop": dict(momentum=0.5, centered=True),
    "Adam": dict(),
    "AdamW": dict(betas=(0.5, 0.9), amsgrad=True, decay_form="independent"),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def make(name, lr, params=None):
    params = np.linspace(-1, 1, 33) if params is None else params
    return getattr(schuss, name.partition(",")[0])(params, lr=lr, **OPTIMIZERS[name])


@each_schedule
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_resume(schedule, name):
    """Training resumes in the middle of a schedule, from a pickle, bit for bit."""
    opt = run(make(name, schedule), range(7))
    other = make(name, pickle.loads(pickle.dumps(schedule)), opt.param_groups[0]["params"][0].copy())
    other.load_state_dict(opt.state_dict())
    assert opt.state_dict()["param_groups"][0]["lr"] == "schedule"
    assert_unchanged(run(pickle.loads(pickle.dumps(opt)), range(7, 30)), snapshot(run(opt, range(7, 30))))
    assert_unchanged(run(other, range(7, 30)), snapshot(opt))


CYCLES = {
    "one_cycle": sch.one_cycle(0.1, 20),
    "three phases": sch.one_cycle(0.1, 20, three_phase=True, momentum=(0.0, 0.9)),
    "cyclic": sch.cyclic(0.01, 0.1, 4, mode="exp_range", gamma=0.9),
    "chain": sch.chain([sch.one_cycle(0.1, 10), sch.exponential(1.0, 0.9)]),
    "warmup": sch.warmup(sch.one_cycle(0.1, 10), 5),
    "join": sch.join([sch.constant(0.1), sch.one_cycle(0.1, 10)], [5]),
    "scale": sch.scale(sch.scale(sch.one_cycle(0.1, 10), 2.0), 2.0),
}


@each_optimizer
@pytest.mark.parametrize("cycle", CYCLES.values(), ids=list(CYCLES))
def test_momentum_is_used(name, cycle):
    """Scheduled momentum equals momentum assigned before each step. The group's own value stays, for other steps."""
    key = "momentum" if "momentum" in OPTIMIZERS[name] else "betas"
    opt, twin = make(name, cycle), make(name, cycle.initial_lr)
    own = opt.param_groups[0][key]
    for t in range(20):
        twin.param_groups[0]["lr"], momentum = cycle(t), cycle.momentum(t)
        if momentum is not None:
            # With exactly 0 the twin would use another rule; this is too small to change a bit.
            twin.param_groups[0][key] = (momentum, *own[1:]) if key == "betas" else momentum or 5e-324
        run(opt, [t])
        run(twin, [t])
        np.testing.assert_array_equal(opt.param_groups[0]["params"][0], twin.param_groups[0]["params"][0])
        assert opt.param_groups[0][key] == own
    assert cycle.sets_momentum and opt.state_dict()["param_groups"][0][key] == own


def test_composed_momenta():
    cycle = sch.one_cycle(0.1, 10)
    assert [CYCLES["warmup"].momentum(t) for t in (0, 5, 7)] == [cycle.momentum(t) for t in (0, 0, 2)]
    assert [CYCLES["join"].momentum(t) for t in (4, 5, 7)] == [None, cycle.momentum(0), cycle.momentum(2)]
    silent = sch.join([sch.one_cycle(0.1, 10, momentum=None), plain], [5])
    assert not silent.sets_momentum and silent.momentum(3) is None
    make("SGD", sch.one_cycle(0.1, 10, momentum=None))


SETS = r"lr is a schedule that sets the momentum too, but "


@pytest.mark.parametrize(
    "kind, kwargs, message",
    [
        ("Adagrad", {}, "Adagrad has neither momentum nor betas; use a schedule that does not"),
        ("SGD", {}, "momentum=0 keeps no buffer for it; make the optimizer with momentum > 0"),
        ("RMSprop", {"momentum": 0}, "momentum=0 keeps no buffer for it; make the optimizer with momentum > 0"),
    ],
)
@pytest.mark.parametrize("cycle", CYCLES.values(), ids=list(CYCLES))
def test_scheduled_momentum_needs_a_momentum_option(kind, kwargs, message, cycle):
    make = getattr(schuss, kind)
    with pytest.raises(ValueError, match="^" + SETS + re.escape(message)):
        make(np.ones(3), lr=cycle, **kwargs)
    with pytest.raises(ValueError, match=r"^param_groups\[1\]: " + SETS + re.escape(message)):
        make([{"params": np.ones(3)}, {"params": np.ones(3), "lr": cycle}], **kwargs)
    opt = make(np.ones(3), **kwargs)
    with pytest.raises(ValueError, match="^" + SETS + re.escape(message)):
        opt.param_groups[0]["lr"] = cycle
    assert not callable(opt.param_groups[0]["lr"])


class Odd:
    """A schedule class that is not ours."""

    def __call__(self, step):
        return 0.1

    def momentum(self, step):
        return [None, 0.5, 1.0, "0.5"][step]


def test_momentum_of_a_foreign_schedule():
    opt = run(make("SGD", Odd()), range(2))
    before = snapshot(opt)
    with pytest.raises(ValueError, match=r"^lr\.momentum\(2\) must be a number >= 0 and < 1, got 1\.0$"):
        run(opt, [2])
    assert_unchanged(opt, before)
    opt.load_state_dict({**opt.state_dict(), "step": 3})
    with pytest.raises(TypeError, match=r"^lr\.momentum\(3\) must be a number >= 0 and < 1, got '0\.5'$"):
        run(opt, [2])
    with pytest.raises(ValueError, match="Adagrad has neither"):
        schuss.Adagrad(np.ones(2), lr=Odd())


def test_independent_decay_is_relative_to_the_peak():
    w, schedule = np.ones(1), sch.warmup(sch.constant(0.1), 4)
    opt = schuss.AdamW(w, lr=schedule, weight_decay=0.5, decay_form="independent")
    for _ in range(6):
        opt.step(np.zeros(1))
    np.testing.assert_allclose(w, np.prod([1 - 0.5 * part for part in (0, 0.25, 0.5, 0.75, 1, 1)]), rtol=1e-12)


# ReduceOnPlateau, the schedule with state.

PLATEAUS = {
    "alone": lambda: sch.reduce_on_plateau(0.1, patience=1, factor=0.5),
    "inside": lambda: sch.scale(sch.join([plain, sch.warmup(PLATEAUS["alone"](), 2)], [1]), 2.0),
}
each_plateau = pytest.mark.parametrize("plateau", PLATEAUS.values(), ids=list(PLATEAUS))


def innermost(schedule):
    while not isinstance(schedule, sch.reduce_on_plateau):
        schedule = schedule.schedules[1] if isinstance(schedule, sch.join) else schedule.schedule
    return schedule


def train(opt, steps):
    for t in steps:
        run(opt, [t])
        innermost(opt.param_groups[0]["lr"]).update(1.0 + t % 3)
    return opt


@each_plateau
@pytest.mark.parametrize("how", ["state_dict", "json", "file", "pickle", "deepcopy"])
def test_plateaus_resume(plateau, how, tmp_path):
    opt = train(make("Adam", plateau()), range(9))
    rate = innermost(opt.param_groups[0]["lr"])
    assert rate(0) < 0.1 and rate.progress.bad_updates == 0 and rate.progress.best == 1.0
    other = make("Adam", plateau(), opt.param_groups[0]["params"][0].copy())
    if how == "file":
        schuss.save(tmp_path / "opt", opt)
        schuss.load(tmp_path / "opt", other)
    elif how in COPIES:
        other = COPIES[how](opt)
    else:
        state = opt.state_dict()
        groups = state["param_groups"]
        other.load_state_dict({**state, "param_groups": json.loads(json.dumps(groups)) if how == "json" else groups})
    again = innermost(other.param_groups[0]["lr"])
    assert again is not rate and again.state_dict() == rate.state_dict() and again != rate
    assert_unchanged(train(other, range(9, 20)), snapshot(train(opt, range(9, 20))))
    assert again.state_dict() == rate.state_dict()


@pytest.mark.parametrize(
    "change", [{"rate": -1.0}, {"best": math.nan}, {"best": "1"}, {"bad_updates": 0.5}, {"cooldown_left": -1}, {"x": 1}]
)
@each_plateau
def test_a_refused_state_changes_nothing(plateau, change):
    opt = train(make("Adam", plateau()), range(3))
    rate, state = innermost(opt.param_groups[0]["lr"]), copy.deepcopy(opt.state_dict())
    train(opt, range(3, 6))
    before, progress = snapshot(opt), rate.progress
    bad = json.loads(json.dumps(state["param_groups"]).replace(json.dumps(rate.state_dict()), "0"))
    kept = bad[0]["lr"]["schedule"]
    while "rate" not in kept:
        kept = next(part for part in kept["parts"] if part)
    kept.update(change)
    with pytest.raises(ValueError, match=r"^state\['param_groups'\]\[0\]\['lr'\] does not fit "):
        opt.load_state_dict({**state, "param_groups": bad})
    assert_unchanged(opt, before)
    assert rate.progress == progress
    opt.load_state_dict(state)
    assert opt.step_count == 3 and rate.progress != progress


def test_plateaus_and_other_rates():
    """Loading keeps the optimizer's own schedule; a saved schedule cannot be loaded into a plain learning rate."""
    rate = sch.reduce_on_plateau(0.1)
    saved = {"plateau": make("SGD", rate), "plain": make("SGD", plain), "number": make("SGD", 0.1)}
    for opt in saved.values():
        for what, lr in (("plateau", sch.reduce_on_plateau(0.3)), ("plain", plain)):
            other = make("SGD", lr)
            other.load_state_dict(opt.state_dict())
            assert other.param_groups[0]["lr"] is lr, what
    with pytest.raises(ValueError, match="was saved with a learning-rate schedule"):
        saved["number"].load_state_dict(saved["plateau"].state_dict())


def test_plateau_details():
    rate = sch.reduce_on_plateau(1.0, patience=0, factor=0.5)
    assert copy.copy(rate).update(1.0) == 1.0 and rate.progress.best is None, "a copy has its own state"
    assert [rate.update(metric) for metric in (np.float32(-1.0), np.array(-0.9995), -1.2)] == [1.0, 0.5, 0.5]
    assert rate.update(math.nan) == 0.25 and rate.progress.best == -1.2
    assert "rate=0.25" in repr(rate) and rate.initial_lr == 1.0
    for metric in (None, "1", True, np.ones(1), 1j):
        with pytest.raises(TypeError, match=r"^metric must be a number, got "):
            rate.update(metric)
    assert rate.update(10**400) == 0.125, "a number too large for a float counts as infinity"
    rate.load_state_dict({**rate.state_dict(), "best": -(10**400)})
    assert rate.progress.best == -math.inf and rate.update(-(10**400)) == 0.0625


@pytest.mark.parametrize("option", ["lr", "weight_decay"])
@pytest.mark.parametrize("kind", [schuss.Muon, schuss.Shampoo, schuss.SOAP])
def test_matrix_optimizers_call_a_schedule_once_a_step(kind, option):
    calls = []
    opt = kind([np.eye(2), np.eye(3)], **{option: lambda step: calls.append(step) or 0.1})
    calls.clear()
    for _ in range(3):
        opt.step([np.eye(2), np.eye(3)])
    assert calls == [0, 1, 2]
