"""Schedule-free optimizers: the two modes, what switches between them, and what must not."""

import copy

import numpy as np
import pytest
from helpers import DTYPES, F32, F64, arrays, assert_same, assert_unchanged, grads_of, params_of, refused, snapshot

import schuss

KINDS = [schuss.ScheduleFreeSGD, schuss.ScheduleFreeAdamW, schuss.ScheduleFreeRAdam]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
SHAPES = [(33,), (4, 5), ()]


def made(kind, dtype=F64, steps=7, **options):
    params = params_of(SHAPES, dtype)
    opt = kind(params, lr=0.05, **options)
    for t in range(1, steps + 1):
        opt.step(grads_of(t, SHAPES, dtype))
    return params, opt


@each_kind
@pytest.mark.parametrize("dtype", [F32, F64, DTYPES["bfloat16"]], ids=str)
def test_there_and_back(kind, dtype):
    """The parameters come back but for rounding, and nothing else has changed."""
    params, opt = made(kind, dtype)
    before, rest = copy.deepcopy(params), copy.deepcopy(arrays(opt)[len(params) :])
    opt.eval()
    assert opt.mode == "eval" and any(np.any(p != q) for p, q in zip(params, before, strict=True))
    opt.train()
    assert opt.mode == "train"
    for p, q in zip(params, before, strict=True):
        np.testing.assert_allclose(p.astype(F64), q.astype(F64), rtol=8 * 2.0 ** -{2: 8, 4: 23, 8: 52}[p.itemsize])
    assert_same(arrays(opt)[len(params) :], rest)


@each_kind
def test_with_master_weights_the_way_back_is_that_of_float32(kind):
    params, opt = made(kind, DTYPES["bfloat16"], master_weights=True)
    before = copy.deepcopy(params)
    opt.eval()
    opt.train()
    assert_same(params, before)


@each_kind
def test_a_switch_to_the_mode_that_there_is_changes_nothing(kind):
    _, opt = made(kind)
    before = snapshot(opt)
    opt.train()
    assert_unchanged(opt, before)
    opt.eval()
    before = snapshot(opt)
    opt.eval()
    assert_unchanged(opt, before)


@each_kind
def test_a_step_in_eval_mode(kind):
    _, opt = made(kind)
    opt.eval()
    before = snapshot(opt)
    with refused(RuntimeError, "the parameters are those for evaluation; call train() before the next step"):
        opt.step(grads_of(8, SHAPES))
    assert_unchanged(opt, before)
    opt.train()
    assert opt.step(grads_of(8, SHAPES))


@each_kind
def test_the_mode_is_in_the_state(kind, tmp_path):
    """Copies, state_dict() and files go on from either mode, with the same bits."""
    params, opt = made(kind)
    opt.eval()
    assert opt.state_dict()["mode"] == "eval"
    schuss.save(tmp_path / "opt", opt)
    others = [copy.deepcopy(opt), kind(params_of(SHAPES), lr=0.05), kind(params_of(SHAPES), lr=0.05)]
    others[1].load_state_dict(opt.state_dict())
    for p, q in zip(others[1].param_groups[0]["params"], params, strict=True):
        p[...] = q
    schuss.load(tmp_path / "opt", others[2])
    for other in [opt, *others]:
        assert other.mode == "eval"
        other.train()
        other.step(grads_of(8, SHAPES))
    for other in others:
        assert_same(arrays(other), arrays(opt))
    bad = opt.state_dict() | {"mode": "test"}
    with pytest.raises(ValueError, match="mode"):
        opt.load_state_dict(bad)


@each_kind
def test_a_switch_that_fails_changes_nothing(kind):
    params, opt = made(kind)
    params[1].flags.writeable = False
    before = snapshot(opt)
    with pytest.raises(ValueError, match="made read-only"):
        opt.eval()
    assert opt.mode == "train"
    assert_unchanged(opt, before)


@each_kind
def test_no_switch_inside_a_step(kind):
    """A schedule that switches is refused, and then nothing has been updated."""
    params = params_of(SHAPES)
    opt = kind(params, lr=lambda step: (opt.eval(), 0.1)[1])
    before = snapshot(opt)
    with pytest.raises(RuntimeError, match="in the middle of a step"):
        opt.step(grads_of(1, SHAPES))
    assert_unchanged(opt, before)


def test_the_average_must_be_recoverable():
    with refused(
        ValueError, "ScheduleFreeAdamW needs betas[0] > 0: with 0 the parameters do not determine the average"
    ):
        schuss.ScheduleFreeAdamW(np.ones(2), betas=(0.0, 0.9))
    with pytest.raises(ValueError, match="momentum"):
        schuss.ScheduleFreeSGD(np.ones(2), momentum=0.0)


@each_kind
def test_the_first_beta_changes_between_eval_and_train_only(kind):
    """In train mode the average would be another one."""
    params, opt = made(kind)
    name = "momentum" if kind is schuss.ScheduleFreeSGD else "betas"
    group = opt.param_groups[0]
    value = 0.5 if name == "momentum" else (0.5, *group["betas"][1:])
    message = (
        f"{name} cannot change in train mode, since the average is computed with it; call eval(), set it, and call "
        "train()"
    )
    with refused(ValueError, message):
        group[name] = value
    group["weight_decay"] = 0.1
    opt.eval()
    average = copy.deepcopy(params)
    group[name] = value
    opt.train()
    opt.eval()
    for p, q in zip(params, average, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-12)
    _, new = made(kind, steps=0)
    new.param_groups[0][name] = value


@each_kind
def test_no_slow_weights_around_it(kind):
    _, opt = made(kind)
    with refused(TypeError, f"{kind.__name__} averages its parameters itself; use it without Lookahead"):
        schuss.Lookahead(opt)
