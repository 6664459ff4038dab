"""Learning-rate schedules alone: closed forms, PyTorch's values, properties, composition, wrong calls."""

import dataclasses
import itertools
import json
import math
import re
from fractions import Fraction

import numpy as np
import pytest
from helpers import DATA
from hypothesis import assume, given
from hypothesis import strategies as st
from schedule_cases import COPIES, FORMS, each_schedule, from_torch, refused

import schuss
from schuss import schedules as sch

each_copy = pytest.mark.parametrize("how", COPIES.values(), ids=list(COPIES))
SWALR = [case for case in json.loads((DATA / "wider.json").read_text())["special"] if case["optimizer"] == "SWALR"]
TORCH = json.loads(next(DATA.glob("torch-schedules-*.json")).read_text())


@pytest.mark.parametrize("name", FORMS)
def test_closed_forms(name):
    schedule, form, base = FORMS[name]
    np.testing.assert_allclose([schedule(t) for t in range(56)], [form(t) for t in range(56)], rtol=1e-12, atol=1e-17)
    assert schedule.initial_lr == pytest.approx(base, rel=1e-15)


@pytest.mark.parametrize("case", TORCH["cases"], ids=lambda case: f"{case['scheduler']}-{case['kwargs']}")
def test_torch(case):
    schedule = from_torch(case["scheduler"], case["kwargs"], TORCH["lr"], len(case["lr"]))
    rates, momenta = [], []
    for t, metric in zip(range(len(case["lr"])), TORCH["metrics"]):
        rates.append(schedule(t))
        momenta.append(schedule.momentum(t))
        if case["scheduler"] == "ReduceLROnPlateau":
            schedule.update(metric)
    # PyTorch multiplies step by step; ours are closed forms, so the rounding differs.
    np.testing.assert_allclose(rates, case["lr"], rtol=1e-11, atol=1e-16)
    if not schedule.sets_momentum:
        assert set(momenta) == {None} and set(case.get("momentum", [0.5])) == {0.5}
    else:
        np.testing.assert_allclose(momenta, case["momentum"], rtol=1e-14)


@pytest.mark.parametrize("case", SWALR, ids=lambda case: str(case["kwargs"]))
def test_torch_swalr(case):
    """PyTorch's figures: the rates before each call of its step()."""
    kwargs = dict(case["kwargs"])
    lr, steps, anneal = kwargs.pop("lr"), kwargs.pop("anneal_epochs"), kwargs.pop("anneal_strategy", "cos")
    schedule = sch.swalr(sch.constant(lr), anneal_steps=steps, anneal=anneal, **kwargs)
    np.testing.assert_allclose([schedule(t) for t in range(len(case["lrs"]))], case["lrs"], rtol=1e-12)


def test_multiplicative_remembers_its_product():
    """Steps in order cost one call each, and any order gives the same rates."""
    calls = []

    def factor(step):
        calls.append(step)
        return 0.9 + 0.01 * (step % 7)

    rate, other = sch.multiplicative(0.3, factor), sch.multiplicative(0.3, factor)
    rates = [rate(t) for t in range(50)]
    assert calls == list(range(1, 50))
    assert [other(t) for t in reversed(range(50))] == rates[::-1]


# Properties of all schedules.


@each_schedule
def test_the_rate_depends_on_the_step_only(schedule):
    """Order and number of calls do not matter, any integer type is accepted, and the rate is a plain float."""
    forward = [schedule(t) for t in range(30)]
    assert [schedule(t) for t in reversed(range(30))] == forward[::-1]
    assert [schedule(np.int64(t)) for t in range(30)] == [schedule(np.uint8(t)) for t in range(30)] == forward
    assert {type(rate) for rate in forward} == {float} and all(rate >= 0 for rate in forward)
    assert type(schedule.initial_lr) is float
    if schedule not in (FORMS["exponential, growing"][0], FORMS["multiplicative"][0]):
        assert 0 <= schedule(10**18) <= schedule.initial_lr


@each_schedule
@each_copy
def test_copies(schedule, how):
    other = how(schedule)
    assert other == schedule and hash(other) == hash(schedule) and repr(other) == repr(schedule)
    assert [other(t) for t in range(30)] == [schedule(t) for t in range(30)]


@each_schedule
def test_schedules_are_frozen_and_show_their_call(schedule):
    """Attributes cannot be assigned, and repr() is the call that makes the schedule."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.lr = 1.0
    assert repr(schedule).startswith(type(schedule).__name__ + "(")
    if "function" not in repr(schedule):
        assert eval(repr(schedule), vars(sch)) == schedule
    assert schedule != sch.constant(7.0) and schedule != 7.0


@each_schedule
@pytest.mark.parametrize(
    "step, error", [(-1, ValueError), (1.0, TypeError), (True, TypeError), ("1", TypeError), (None, TypeError)]
)
def test_wrong_steps(schedule, step, error):
    for call in (schedule, schedule.momentum):
        with pytest.raises(error, match=f"^{re.escape(f'step must be a whole number >= 0, got {step!r}')}$"):
            call(step)


# Properties of single schedules.

rates = st.floats(0, 1e3) | st.sampled_from([0.0, 0.1, 1e-3])
lengths = st.integers(1, 200) | st.sampled_from([1, 2, 10**6])


@given(rates, rates, lengths, st.floats(0.1, 5))
def test_descents(first, last, n, power):
    """Rates fall monotonically, from exactly the first to exactly the last."""
    low, high = sorted((first, last))
    for schedule in (sch.cosine(high, low, n), sch.polynomial(high, n, power, low), sch.linear(high, low, n)):
        values = [schedule(t) for t in range(min(n, 300) + 1)]
        assert schedule(0) == high and schedule(n) == schedule(n + 1) == schedule(10 * n + 7) == low
        assert all(low <= value <= high for value in values)
        assert all(b <= a or b - a <= 1e-15 * high for a, b in itertools.pairwise(values))
    up, down = sch.linear(low, high, n), sch.linear(high, low, n)
    assert all(up(n - t) == pytest.approx(down(t), rel=1e-12, abs=1e-12) for t in range(min(n, 50)))


@given(rates, lengths, st.integers(0, 10**12))
def test_periods(high, n, t):
    wave, saw = sch.cosine(high, 0.0, n, "periodic"), sch.cosine_restarts(high, 0.0, n)
    assert wave(t) == wave(t + 2 * n) and wave(2 * n * 10**9 + t % n) == wave(2 * n * 10**9 - t % n)
    assert saw(t) == saw(t + n) and saw(n * t) == high and saw(t) == sch.cosine(high, 0.0, n)(t % n)


@given(st.integers(1, 9), st.integers(2, 5), st.integers(0, 12))
def test_restarts_come_at_the_given_steps(first, factor, i):
    schedule = sch.cosine_restarts(0.1, 0.05, first, factor)
    start = sum(first * factor**k for k in range(i))
    assert schedule(start) == 0.1 and schedule(start + first * factor**i) == 0.1
    assert start == 0 or schedule(start - 1) < 0.1 or first * factor ** (i - 1) == 1


@pytest.mark.parametrize("first, tenths", [(10, 14), (100, 22), (10_000, 11), (1024, 15), (1000, 16), (8, 25)])
def test_restarts_of_periods_that_are_no_whole_multiples(first, tenths):
    schedule = sch.cosine_restarts(0.1, 0.0, first, tenths / 10)
    start, length = Fraction(0), Fraction(first)
    for _ in range(12):
        # The rate is low before a restart, and high from it on, also where rounding could delay it by a step.
        assert schedule(math.ceil(start)) > 0.05, start
        assert start == 0 or schedule(math.ceil(start) - 1) < 0.05, start
        start, length = start + length, length * tenths / 10


@given(rates, st.integers(0, 50), st.floats(0, 1), st.booleans())
def test_warmup_is_linear_and_continuous(rate, steps, start, skip_first):
    schedule = sch.warmup(sch.cosine(rate, 0.0, 30), steps, start, skip_first)
    ramp = [schedule(t) for t in range(steps + 1)]
    assert ramp[-1] == rate and all(a <= b for a, b in itertools.pairwise(ramp))
    np.testing.assert_allclose(np.diff(ramp, 2), 0, atol=1e-12 * max(rate, 1))
    if steps and not skip_first:
        assert ramp[0] == start * rate
    elif steps and start < 0.99 and rate > 1e-9:
        assert ramp[0] > start * rate
    assert [schedule(steps + t) for t in range(40)] == [sch.cosine(rate, 0.0, 30)(t) for t in range(40)]


@given(rates, st.integers(1, 300), st.floats(0, 1), st.sampled_from(["cos", "linear"]), st.booleans())
def test_one_cycle_goes_up_and_down(rate, n, part, anneal, three):
    assume(not three or part <= 0.5)
    schedule = sch.one_cycle(rate, n, part, 10.0, 100.0, anneal, three)
    values, momenta = [schedule(t) for t in range(n)], [schedule.momentum(t) for t in range(n)]
    top = values.index(max(values))
    assert all(0 <= value <= rate for value in values) and all(0.85 <= momentum <= 0.95 for momentum in momenta)
    assert all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(values[: top + 1]))
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(values[top:]))
    bottom = momenta.index(min(momenta))
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(momenta[: bottom + 1]))
    assert all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(momenta[bottom:]))
    assert abs(top - bottom) <= 1 or rate < 1e-100, "the momentum is lowest where the rate is highest"
    assert schedule(n + 5) == values[-1] and schedule.momentum(n + 5) == momenta[-1]
    if n > 1 and part < 1 - 1 / n:
        assert values[-1] == rate / 10 / 100 and momenta[-1] == 0.95


def test_huge_steps_and_overflow():
    for schedule in (sch.exponential(0.1, 0.5), sch.step(0.1, 3), sch.multi_step(0.1, [2])):
        assert schedule(10**400) in (0.0, 0.1 * 0.1), "a step that is too large for a float"
    assert sch.exponential(0.1, 1.0)(10**400) == 0.1
    for schedule in (sch.inverse_time(0.1, 0.5), sch.inverse_time(0.1, 0.5, 3, staircase=True)):
        assert 0.0 <= schedule(10**400) < 1e-300
    assert 0.0 <= sch.cosine_restarts(0.1, 0.0, 2, T_mult=1.5)(10**400) <= 0.1
    with pytest.raises(ValueError, match=r"^total_steps must be a whole number >= 1 and < 2\*\*63, got 1000"):
        sch.one_cycle(0.1, 10**400)
    opt = schuss.SGD(np.ones(2), lr=sch.exponential(0.1, 1e300))
    opt.step(np.ones(2))
    opt.step(np.ones(2))
    with pytest.raises(ValueError, match="lr returned inf at step 2; it must return a number >= 0"):
        opt.step(np.ones(2))


def test_numbers_of_other_types():
    assert sch.cosine(np.float32(0.5), 0, np.int8(10)) == sch.cosine(0.5, 0.0, 10)
    assert sch.constant(Fraction(1, 2))(0) == 0.5
    assert sch.multi_step(1, np.array([2, 3])) == sch.multi_step(1.0, [2, 3]) == sch.multi_step(1.0, (2, 3))
    assert sch.step(1.0, 2) != sch.step(1.0, 3) and sch.linear(1, 0, 2) != sch.polynomial(1, 2)


@refused
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call(sch)


def test_arguments_of_nested_schedules_are_checked():
    for bad, error in ((lambda t: "x", TypeError), (lambda t: -1.0, ValueError), (lambda t: math.nan, ValueError)):
        for outer in (sch.scale(bad, 2.0), sch.warmup(bad, 2), sch.join([sch.constant(1.0), bad], [1])):
            with pytest.raises(
                error, match=r"^schedule(s\[1\])? returned .* at step \d; it must return a number >= 0$"
            ):
                outer(1)


@pytest.mark.parametrize(
    "rate", [sch.exponential(0.0, 1.1), sch.step(0.0, 1, 2.0), sch.multi_step(0.0, [1, 2], 1e308)], ids=repr
)
def test_a_rate_of_zero_stays(rate):
    assert rate(10**6) == 0.0


@pytest.mark.parametrize("first", ["x", math.inf, math.nan, -1.0, True])
def test_a_wrong_initial_lr(first):
    def rate(step):
        return 0.1

    rate.initial_lr = first
    with pytest.raises((TypeError, ValueError), match=r"^lr\.initial_lr must be a number >= 0"):
        schuss.AdamW(np.ones(2), lr=rate, decay_form="independent")
