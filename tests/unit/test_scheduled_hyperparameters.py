"""Weight decay, momentum and betas as functions of the step, for every optimizer: treated like a schedule of lr."""

import copy
import json
import pickle

import numpy as np
import pytest
from families import declared
from helpers import CLASSES, DTYPES, assert_same, assert_unchanged, refused, snapshot

import schuss
from schuss import functional, schedules
from schuss._core.validate import Schedulable

NAMES = ("weight_decay", "momentum", "betas")
STEPS = 6


def falling(step):
    return 0.3 / (step + 1)


def rising(step):
    return 1.0 - 0.5 ** (step + 1)


def pairs(step):
    return 0.5 + 0.05 * step, 0.9 + 0.01 * step


def triples(step):
    return *pairs(step), 0.99 + 0.001 * step


SCHEDULES = {"weight_decay": falling, "momentum": rising, "betas": pairs}


def scheduled(name):
    """The hyperparameters of an optimizer that can be schedules, with schedules for them."""
    fields = schuss.OPTIMIZERS[name]._parameters
    names = [key for key in NAMES if key in fields and isinstance(fields[key].check, Schedulable)]
    own = {key: SCHEDULES[key] for key in names}
    if "betas" in own and name != "AggMo" and len(fields["betas"].default) == 3:
        own["betas"] = triples
    return own


USUAL = declared("REQUIRED") | declared("MOVING")
GIVEN = {name: declared("REQUIRED").get(name, {}) | USUAL.get(name, {}) for name in schuss.OPTIMIZERS}
each_optimizer = pytest.mark.parametrize("name", [name for name in schuss.OPTIMIZERS if scheduled(name)])


def make(name, dtype=np.float64, **hypers):
    given = {key: value for key, value in GIVEN[name].items() if key not in hypers}
    return CLASSES[name]([np.linspace(-1, 1, 33).astype(dtype), np.ones((3, 4), dtype)], **{"lr": 0.1} | given | hypers)


def run(opt, steps):
    for t in steps:
        rng = np.random.default_rng([5, t])
        opt.step([rng.standard_normal(33), rng.standard_normal((3, 4))])
    return opt


def test_every_optimizer_declares_them_as_schedulable():
    """Write ``weight_decay: WeightDecay``, ``momentum: Momentum`` and ``betas: Betas`` (or ``Betas3``)."""
    for kind in schuss.OPTIMIZERS.values():
        missing = {key for key in NAMES if key in kind._parameters} - set(scheduled(kind.__name__))
        assert not missing or (kind._fixed_momentum and "weight_decay" not in missing), (kind.__name__, missing)


@each_optimizer
def test_as_if_set_before_each_step(name):
    """The same bits as an optimizer whose hyperparameters are assigned before each step."""
    own = scheduled(name)
    opt, twin = make(name, **own), make(name, **{key: schedule(0) for key, schedule in own.items()})
    for t in range(STEPS):
        twin.param_groups[0].update({key: schedule(t) for key, schedule in own.items()})
        run(opt, [t])
        run(twin, [t])
        assert_same(snapshot(opt)[0], snapshot(twin)[0], f"step {t}")
    assert {key: opt.param_groups[0][key] for key in own} == own


@each_optimizer
@pytest.mark.parametrize("how", ["state_dict", "file", "pickle"])
def test_resume(name, how, tmp_path):
    own = scheduled(name)
    opt = run(make(name, np.float32, **own), range(3))
    state = opt.state_dict()["param_groups"][0]
    assert {key: state[key] for key in own} == dict.fromkeys(own, "schedule")
    if how == "pickle":
        other = pickle.loads(pickle.dumps(opt))
    else:
        other = make(name, np.float32, **own)
        for p, q in zip(other.param_groups[0]["params"], opt.param_groups[0]["params"], strict=True):
            p[...] = q
        if how == "file":
            schuss.save(tmp_path / "opt", opt)
            schuss.load(tmp_path / "opt", other)
        else:
            other.load_state_dict(opt.state_dict())
    assert_unchanged(run(other, range(3, STEPS)), snapshot(run(opt, range(3, STEPS))))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_dtypes_groups_and_lookahead(dtype):
    def grouped(*decays):
        groups = [{"params": [np.ones(5, dtype)], "weight_decay": decay} for decay in decays]
        return schuss.Lookahead(schuss.AdamW(groups, lr=0.1, betas=pairs), k=2)

    opt, twin = grouped(falling, 0.5), grouped(0.3, 0.5)
    for t in range(STEPS):
        twin.param_groups[0]["weight_decay"] = falling(t)
        for one in (opt, twin):
            one.step([[np.full(5, t - 2.5)]] * 2)
    assert_same(snapshot(opt)[0], snapshot(twin)[0])


def test_arrays_without_axes_are_numbers_as_those_of_the_rate_are():
    """JAX's schedules return them."""

    def one_of(value):
        return lambda step: np.array(value, np.float32)

    class Cycle:
        def __call__(self, step):
            return np.array(0.5)

        momentum = __call__

    given = dict(lr=one_of(0.5), weight_decay=one_of(0.25), betas=lambda step: [np.array(0.5), np.array(0.75)])
    opt, twin = make("AdamW", **given), make("AdamW", lr=0.5, weight_decay=0.25, betas=(0.5, 0.75))
    assert_same(snapshot(run(opt, range(2)))[0], snapshot(run(twin, range(2)))[0])
    rounded = np.array(0.2, np.float32)
    opt, twin = (make("SOAP", betas=b) for b in (lambda step: (rounded, rounded), (float(rounded), float(rounded))))
    assert_same(snapshot(run(opt, range(3)))[0], snapshot(run(twin, range(3)))[0])
    opt, twin = make("SGD", lr=Cycle(), momentum=0.9), make("SGD", lr=0.5, momentum=0.5)
    assert_same(snapshot(run(opt, range(2)))[0], snapshot(run(twin, range(2)))[0])
    with refused(TypeError, "weight_decay at step 0 must be a number >= 0, got array([0.25], dtype=float32)"):
        make("AdamW", weight_decay=one_of([0.25]))


def test_a_schedule_with_state_is_saved():
    decay = schedules.reduce_on_plateau(0.25, factor=0.5, patience=0)
    opt = schuss.AdamW(np.ones(3), weight_decay=decay)
    other = schuss.AdamW(np.ones(3), weight_decay=schedules.reduce_on_plateau(0.25, factor=0.5, patience=0))
    decay.update(1.0)
    decay.update(2.0)
    state = json.loads(json.dumps(opt.state_dict()["param_groups"]))
    assert state[0]["weight_decay"]["schedule"]["rate"] == 0.125
    other.load_state_dict({**opt.state_dict(), "param_groups": state})
    assert other.param_groups[0]["weight_decay"](0) == 0.125


def test_switching_to_a_schedule_and_back():
    opt, twin = make("AdamW"), make("AdamW")
    opt.param_groups[0]["weight_decay"] = falling
    for t in range(2):
        twin.param_groups[0]["weight_decay"] = falling(t)
        run(opt, [t])
        run(twin, [t])
    opt.param_groups[0]["weight_decay"] = twin.param_groups[0]["weight_decay"] = 0.125
    assert_unchanged(run(opt, range(2, 4)), snapshot(run(twin, range(2, 4))))


def test_a_momentum_that_begins_at_zero_has_its_buffer():
    opt = run(schuss.SGD([np.ones(33), np.ones((3, 4))], lr=0.1, momentum=lambda step: 0.1 * step), range(3))
    assert list(opt.state_dict()["state"][0]) == ["b"]


def test_programs_use_the_values_of_the_next_step():
    """Sophia's Hessian estimate decays by the scheduled beta."""
    opt, twin = (schuss.SophiaG(np.ones(3), betas=betas) for betas in (pairs, pairs(0)))
    for t in range(3):
        twin.param_groups[0]["betas"] = pairs(t)
        for one in (opt, twin):
            one.update_hessian(np.full(3, 0.5 + t))
            one.step(np.full(3, 0.25))
    assert_same(snapshot(opt)[0], snapshot(twin)[0])


WRONG = [
    (lambda: schuss.AdamW(np.ones(2), weight_decay=lambda step: -1.0), ValueError,
     "weight_decay at step 0 must be a number >= 0, got -1.0"),
    (lambda: schuss.AdamW(np.ones(2), weight_decay=lambda step: "1"), TypeError,
     "weight_decay at step 0 must be a number >= 0, got '1'"),
    (lambda: schuss.AdamW([{"params": np.ones(2), "betas": lambda step: 0.9}]), TypeError,
     "param_groups[0]: betas at step 0 must be a pair of numbers >= 0 and < 1, got 0.9"),
    (lambda: schuss.SGD(np.ones(2), momentum=lambda step: falling), None, "momentum at step 0 must be a number"),
    (lambda: schuss.AdamW(np.ones(2), weight_decay=schedules.cosine), None, "weight_decay must be a number >= 0, got "),
    (lambda: schuss.Adam(np.ones(2), lr=schedules.one_cycle(0.1, 9), betas=pairs), ValueError,
     "lr is a schedule that sets the momentum, which is a schedule too; use one"),
    (lambda: schuss.ScheduleFreeSGD(np.ones(2), momentum=rising), None, "momentum must be a number > 0 and < 1, got <"),
    (lambda: schuss.ScheduleFreeAdamW(np.ones(2), lr=schedules.one_cycle(0.1, 9)), None,
     "lr is a schedule that sets the momentum too, but ScheduleFreeAdamW needs the same in every step; use a schedule"),
    (lambda: schuss.Adai(np.ones(2), lr=schedules.one_cycle(0.1, 9)), None,
     "lr is a schedule that sets the momentum too, but Adai computes its momentum itself; use a schedule"),
    (lambda: schuss.AggMo(np.ones(2), lr=schedules.one_cycle(0.1, 9)), None,
     "lr is a schedule that sets the momentum too, but AggMo has several, which differ; use a schedule"),
    (lambda: functional.sgd_(np.ones(2), np.ones(2), step=1, weight_decay=falling), TypeError,
     "weight_decay must be a number here: call the schedule yourself"),
    (lambda: schuss.AdamW(np.ones(2)).load_state_dict(schuss.AdamW(np.ones(2), weight_decay=falling).state_dict()),
     ValueError, "state['param_groups'][0] was saved with a schedule for weight_decay, which is a function and cannot "
     "be saved; make the optimizer with weight_decay=<that schedule> before loading"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_wrong_calls(call, error, message):
    if error is not None:
        with refused(error, message):
            call()
        return
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_a_wrong_value_at_a_later_step_changes_nothing():
    opt = run(make("AdamW", weight_decay=lambda step: 0.1 if step < 2 else -0.1), range(2))
    before = copy.deepcopy(snapshot(opt))
    with refused(ValueError, "weight_decay at step 2 must be a number >= 0, got -0.1"):
        run(opt, [2])
    assert_unchanged(opt, before)
    opt = run(make("SGD", momentum=lambda step: 0.5 if step < 2 else 0.0, nesterov=True), range(2))
    run(opt, [2])
    opt = run(make("AggMo", betas=lambda step: (0.0, 0.5, 0.9)[: 3 - step // 2]), range(2))
    with refused(ValueError, "betas at step 2 needs other state arrays than at step 0"):
        run(opt, [2])
