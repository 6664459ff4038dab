"""Parts of a step besides the rule: grad_scale, clipping, maximize, gradient buffers, schedules, assigned values."""

import math

import numpy as np
import pytest
from cases import schedule
from helpers import (
    DTYPES,
    F32,
    F64,
    OPTIMIZER_OPTIONS,
    TYPICAL,
    arrays,
    assert_close,
    assert_same,
    assert_unchanged,
    build,
    cast,
    compute_dtype,
    each_case,
    each_dtype,
    each_optimizer,
    each_optimizer_newton_too,
    grads_of,
    group_options,
    is_newton,
    leaves,
    parameters,
    params_of,
    random_arrays,
    sampled_cases,
    snapshot,
    sums,
    twins,
)

import schuss

SHAPES = [(33,), (5, 3), ()]
STEPS = range(1, 6)


@each_case
def test_maximize_negates_the_gradient(case):
    opt, _ = twins(case, SHAPES, maximize=True)
    _, twin = twins(case, SHAPES, maximize=False)
    for t in STEPS:
        opt.step(grads_of(t, SHAPES))
        twin.step([np.asarray(-g) for g in grads_of(t, SHAPES)])
    assert_same(arrays(opt), arrays(twin))


@sampled_cases
@each_dtype
def test_grad_scale(case, dtype):
    """Division by a power of two is exact, so it gives the same bits in the step as before it."""
    opt, twin = twins(case, SHAPES, dtype)
    for t in STEPS:
        scale = 2.0 ** (t - 3)
        grads = grads_of(t, SHAPES, dtype)
        opt.step([cast(g.astype(compute_dtype(dtype)) * scale, compute_dtype(dtype)) for g in grads], grad_scale=scale)
        twin.step(grads)
    assert_same(arrays(opt), arrays(twin))


@each_optimizer
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("grad_scale", [1.0, 4.0, 3.0])
def test_clipping_equals_clipping_in_numpy(case, dtype, maximize, grad_scale):
    """One float64 norm over all groups, PyTorch's coefficient, one multiplication per gradient element."""
    shapes = [*SHAPES, (70_000,)]
    params, want = params_of(shapes, dtype), params_of(shapes, dtype)
    opt = build(case, [{"params": params[:2]}, {"params": params[2:]}], maximize=maximize, max_grad_norm=1.5)
    twin = build(case, [{"params": want[:2]}, {"params": want[2:]}], maximize=maximize, max_grad_norm=None)
    assert opt.grad_norm is None and twin.grad_norm is None
    clipped = []
    for t, size in enumerate([1.0, 1e-5, 1e-2, 1e3], start=1):
        grads = [cast(g * size, dtype) for g in grads_of(t, shapes)]
        opt.step([grads[:2], grads[2:]], grad_scale=grad_scale)
        norm = math.sqrt(math.fsum(x * x for g in grads for x in g.ravel().tolist())) / grad_scale
        assert opt.grad_norm == pytest.approx(norm, rel=1e-12)
        coefficient = min(1.0, 1.5 / (opt.grad_norm + 1e-6)) / grad_scale
        clipped.append(coefficient * grad_scale < 1)
        by_hand = [np.asarray(g * dtype.type(coefficient)) for g in grads]
        twin.step([by_hand[:2], by_hand[2:]])
    assert clipped == [True, False, clipped[2], True]
    assert_same(arrays(opt), arrays(twin))
    assert twin.grad_norm is None


@each_optimizer_newton_too
def test_clipping_of_low_precision_gradients(case):
    """The norm is that of the gradients in their own dtype, before any conversion."""
    for dtype in DTYPES.values():
        opt, _ = twins(case, SHAPES, dtype, max_grad_norm=1.0)
        grads = grads_of(1, SHAPES, dtype)
        opt.step(grads)
        assert opt.grad_norm == pytest.approx(math.sqrt(sum(np.sum(g.astype(F64) ** 2) for g in grads)), rel=1e-12)


@sampled_cases
@each_dtype
def test_zero_grads(case, dtype):
    """The gradients are zero after the step, in any memory layout, and the step's result does not change."""
    opt, twin = twins(case, SHAPES)
    for t in STEPS:
        a, b, c = grads_of(t, SHAPES, dtype)
        scalar = c.copy()
        wide, turned = np.repeat(a, 2)[::-1], np.asfortranarray(b)
        given = [wide[::-2], turned, scalar]
        assert_same([given[0]], [a])
        assert opt.step(given, zero_grads=True) is True
        twin.step([a, b, c])
        assert_same(given, [np.zeros_like(g) for g in given], "gradients")
        assert_same([wide[::-1][1::2]], [a], "memory between the gradient's elements")
        assert a.any() and b.any()
    assert_same(arrays(opt), arrays(twin))


@each_optimizer_newton_too
@each_dtype
def test_accumulation(case, dtype):
    """opt.grads are buffers in the structure of the parameters, allocated once and used by step() without arguments."""
    a, b, c = params_of(SHAPES, dtype)
    opt = build(case, {"a": a, "rest": (b, c)})
    twin = build(case, params_of(SHAPES, dtype))
    assert [g.dtype for g in leaves(opt.grads)] == [compute_dtype(dtype)] * 3
    assert [g.shape for g in leaves(opt.grads)] == SHAPES
    assert not any(g.any() for g in leaves(opt.grads))
    held = leaves(opt.grads)
    for t in STEPS:
        micro = [grads_of(10 * t + k, SHAPES, compute_dtype(dtype)) for k in range(3)]
        for grads in micro:
            for own, g in zip(leaves(opt.grads), grads, strict=True):
                own[...] += g
        assert all(x is y for x, y in zip(held, leaves(opt.grads), strict=True))
        opt.step(grad_scale=3.0, zero_grads=t % 2 == 0)
        assert any(g.any() for g in held) == (t % 2 == 1)
        opt.zero_grad()
        assert not any(g.any() for g in held)
        twin.step([np.asarray(x + y + z) for x, y, z in zip(*micro, strict=True)], grad_scale=3.0)
    assert_same(arrays(opt), arrays(twin))


def test_gradient_buffers_of_groups():
    params = params_of(SHAPES)
    opt = schuss.SGD([{"params": {"w": params[0]}}, {"params": params[1]}])
    assert opt.grads[0]["w"].shape == (33,) and opt.grads[1].shape == (5, 3)
    opt.grads[0]["w"][...] = 1
    opt.add_param_group({"params": [params[2]], "lr": 0.5})
    assert (opt.grads[0]["w"] == 1).all(), "accumulated gradients stay"
    opt.grads[2][0][...] = 2.0
    before = params[2].copy()
    opt.step()
    assert_same([params[2]], [before - 1.0])


@pytest.mark.parametrize("around", [False, True])
def test_adding_to_the_gradient_buffer_of_one_array(around):
    """`opt.grads += x` also assigns the result to opt.grads."""
    w = np.ones(2)
    opt = schuss.SGD(w, lr=0.5)
    opt = schuss.Lookahead(opt) if around else opt
    held = opt.grads
    opt.grads += 0.5
    opt.grads += np.full(2, 0.5)
    assert opt.grads is held and opt.step(zero_grads=True)
    assert_same([w, held], [np.full(2, 0.5), np.zeros(2)])


@each_optimizer_newton_too
def test_schedule_counts_from_zero(case):
    """A schedule is called with the number of steps taken; skipped steps do not count."""
    asked = []

    def lr(step):
        asked.append(step)
        return schedule(step)

    # AdaBound's bounds are relative to the first rate.
    opt, twin = build(case, params_of(SHAPES), lr=lr, nonfinite="skip"), build(case, params_of(SHAPES), lr=schedule(0))
    asked.clear()
    for t in STEPS:
        opt.step([np.full(s, np.nan) for s in SHAPES])
        opt.step(grads_of(t, SHAPES))
        twin.param_groups[0]["lr"] = schedule(t - 1)
        twin.step(grads_of(t, SHAPES))
    assert sorted(set(asked)) == [0, 1, 2, 3, 4] and all(type(step) is int for step in asked)
    assert_same(arrays(opt), arrays(twin))


@each_optimizer_newton_too
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.1, "fast", None, ZeroDivisionError])
def test_a_schedule_that_fails_changes_nothing(case, wrong):
    def lr(step):
        if step < 2:
            return 0.1
        if isinstance(wrong, type):
            raise wrong("in the schedule")
        return wrong

    params = params_of(SHAPES)
    opt = build(case, [{"params": params[:2]}, {"params": params[2:], "lr": lr}], lr=0.1)
    for t in (1, 2):
        opt.step([grads_of(t, SHAPES)[:2], grads_of(t, SHAPES)[2:]])
    before, grads = snapshot(opt), grads_of(3, SHAPES)
    with pytest.raises((ValueError, TypeError, ZeroDivisionError), match=r"lr|in the schedule"):
        opt.step([grads[:2], grads[2:]], zero_grads=True)
    assert_unchanged(opt, before)
    assert_same(grads, grads_of(3, SHAPES), "gradients")


def test_independent_decay_follows_the_learning_rate():
    """Its factor is the current rate divided by the initial rate."""
    p = np.ones(3)
    opt = schuss.AdamW(p, lr=0.1, weight_decay=0.2, decay_form="independent")
    for lr, factor in [(0.1, 0.8), (0.05, 0.9), (0.2, 0.6), (0.0, 1.0)]:
        opt.param_groups[0]["lr"] = lr
        before = p.copy()
        opt.step(np.zeros(3))
        np.testing.assert_allclose(p, before * factor, rtol=1e-15)


@each_optimizer_newton_too
def test_hyperparameters_assigned_between_steps(case):
    """The next step uses a value assigned to param_groups[i][name]; a refused value changes nothing."""
    opt, twin = twins(case, SHAPES)
    reference = build(case, params_of(SHAPES))
    group = opt.param_groups[0]
    options, decays = group_options(case), "weight_decay" in group
    for name in options:
        assert group[name] == options[name]
    assert set(group) >= {"params", "lr", "maximize"} and not OPTIMIZER_OPTIONS & set(group)
    for t in STEPS:
        group["lr"] = schedule if t == 4 else 0.1 / t
        if decays:
            group["weight_decay"] = twin.param_groups[0]["weight_decay"] = 0.01 * t
        before = dict(group)
        for name, bad in [("lr", -1.0), ("lr", np.nan), ("lr", "fast"), ("weight_decay", -0.1), ("maximize", "no")]:
            with pytest.raises((ValueError, TypeError), match=name):
                group[name] = bad
        assert dict(group) == before
        twin.param_groups[0]["lr"] = schedule(t - 1) if t == 4 else 0.1 / t
        for o in (opt, twin, reference):
            o.step(grads_of(t, SHAPES))
    assert_same(arrays(opt), arrays(twin))
    with pytest.raises(AssertionError):
        assert_close(parameters(opt), parameters(reference), 1e-6)


@pytest.mark.parametrize(
    "case", [c for c in TYPICAL.values() if not (is_newton(c) or sums(c))], ids=lambda c: c.optimizer
)
@pytest.mark.parametrize("count", [1000, 5000])
def test_many_small_arrays(case, count):
    """Thousands of small arrays give the bits of one long array."""
    shapes = [(k % 70,) for k in range(count)]
    params, want = random_arrays(3, shapes, F32), random_arrays(3, shapes, F32)
    whole = np.concatenate(want)
    opt, twin = build(case, params), build(case, whole)
    for t in (1, 2):
        grads = random_arrays((4, t), shapes, F32)
        opt.step(grads)
        twin.step(np.concatenate(grads))
    assert_same([np.concatenate(params)], [whole])
