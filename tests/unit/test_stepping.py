"""Steps array by array: the bits of a whole step, in any order, and what is refused."""

import copy
import fractions
import functools

import numpy as np
import pytest
from at_once import at_once
from helpers import (
    JOINT,
    assert_same,
    build,
    clips,
    each_optimizer_but,
    grads_of,
    has_slow_weights,
    inner,
    is_newton,
    parameters,
    params_of,
    refused,
    sampled_cases_but,
    snapshot,
)

import schuss

SHAPES = [(33,), (5, 300), (), (4, 3)]


def takes_no_gradients(case):
    return "NAG" in case.optimizer


def cannot(case):
    """Needs all arrays at once, a closure, or is a wrapper."""
    other = inner(case.optimizer) in JOINT | {"Muon", "SOAP", "Shampoo"} or has_slow_weights(case)
    return other or takes_no_gradients(case) or is_newton(case) or clips(case) or case.kwargs.get("nonfinite") == "skip"


@sampled_cases_but(cannot)
def test_the_bits_are_those_of_a_whole_step(case):
    opt, other = (build(case, params_of(SHAPES)) for _ in range(2))
    params = parameters(other)
    for t in range(1, 6):
        grads = grads_of(t, SHAPES)
        if t == 3:
            grads[1] = None
        opt.step(grads, grad_scale=2.0)
        with other.stepping() as update:
            for i in (2, 1, 3, 0):
                if grads[i] is not None:
                    update(params[i], grads[i], grad_scale=2.0)
    a, b = snapshot(opt), snapshot(other)
    assert_same(b[0], a[0])
    assert opt.step_count == other.step_count == 5
    assert opt._counters == other._counters


@each_optimizer_but(lambda case: not cannot(case) or clips(case))
def test_optimizers_that_need_more_refuse(case):
    opt = build(case, params_of(SHAPES if not is_newton(case) else [(3,)]))
    with pytest.raises(TypeError, match=r"stepping|array by array"), opt.stepping():
        pass
    assert opt.step_count == 0


def made(**options):
    a, b, c = np.ones(3), np.full((2, 2), 2.0), np.ones(4, np.float32)
    opt = schuss.AdamW([{"params": {"a": a}}, {"params": [b, c], "lr": 0.5}], lr=0.1, **options)
    return opt, (a, b, c)


@pytest.mark.parametrize("kind", [schuss.SGD, schuss.AdamW, schuss.LARS, schuss.Adafactor])
def test_packed_parameters(kind):
    packed, params = schuss.pack(params_of(SHAPES)), params_of(SHAPES)
    opt, other = kind(packed, lr=0.1), kind(params, lr=0.1)
    for t in range(1, 4):
        grads = grads_of(t, SHAPES)
        with opt.stepping() as update:
            for i in (2, 0, 3, 1):
                update(packed[i], grads[i])
        other.step(grads)
    assert_same(packed, params)


def test_groups_and_arrays_that_are_left_out():
    (opt, own), (other, others) = made(), made()
    for t in range(4):
        grads = [np.full(p.shape, t + 1.0) for p in own]
        with opt.stepping() as update:
            update(own[2], grads[2])
            if t != 1:
                update(own[0], grads[0])
        other.step([{"a": None if t == 1 else grads[0]}, [None, grads[2]]])
    assert_same(own, others)
    assert opt._counters == other._counters
    grads = [{"a": np.ones(3)}, [np.ones((2, 2)), np.ones(4)]]
    assert opt.step(grads) and other.step(grads)
    assert_same(snapshot(opt)[0], snapshot(other)[0])


def test_an_array_that_was_replaced():
    params = [np.ones(3), np.ones(2)]
    opt = schuss.AdamW(params, lr=0.1)
    params[1] = np.ones(2)
    with pytest.raises(ValueError, match=r"^params\[1\] is not the array that this optimizer updates"), opt.stepping():
        pass
    assert opt.step_count == 0


def test_an_option_that_is_set_while_a_step_begins():
    made = []

    class Params(dict):
        def __getitem__(self, key):
            for opt in made:
                opt.nonfinite = "skip"
            return super().__getitem__(key)

    a = np.ones(3)
    opt = schuss.AdamW(Params(a=a), lr=0.1)
    made.append(opt)
    with pytest.raises(ValueError, match="cannot take back the arrays"), opt.stepping():
        pass
    made.clear()
    opt.nonfinite = "error"
    assert opt.step({"a": np.ones(3)}) and opt.step_count == 1


def test_schedules_count_a_block_once():
    seen = []
    w = [np.ones(2), np.ones(3)]
    opt = schuss.SGD(w, lr=lambda step: seen.append(step) or 1.0 / (1 + step))
    seen.clear()
    for _ in range(3):
        with opt.stepping() as update:
            update(w[1], np.ones(3))
            update(w[0], np.ones(2))
    assert seen == [0, 0, 1, 1, 2, 2]
    assert w[0][0] == w[1][0] == 1.0 - 1.0 - 0.5 - 1 / 3


def test_a_failed_update_changes_nothing_and_the_others_count():
    opt, (a, b, _) = made(nonfinite="error")
    message = r"^grads\[1\]\[0\] has a NaN or infinity, first at \(0, 1\); this array was not updated$"
    with pytest.raises(FloatingPointError, match=message), opt.stepping() as update:
        update(a, np.ones(3))
        update(b, np.array([[1.0, np.inf], [0.0, 0.0]]))
    assert opt.step_count == 1 and b[0, 0] == 2.0 and a[0] != 1.0
    assert opt._counters[3] == [0, 1, 1]
    with pytest.raises(ValueError, match=r"^grads\[0\]\['a'\] has shape \(2,\)"), opt.stepping() as update:
        update(a, np.ones(2))
    assert opt.step_count == 1
    with opt.stepping():
        pass
    assert opt.step_count == 1


def test_nothing_else_may_change_the_optimizer_meanwhile(tmp_path):
    opt, (a, b, _) = made()
    grads = [{"a": np.ones(3)}, [np.ones((2, 2)), np.ones(4)]]
    state = opt.state_dict()
    with opt.stepping() as update:
        update(a, np.ones(3))
        for call in [
            lambda: opt.step(grads),
            lambda: opt.load_state_dict(state),
            lambda: opt.add_param_group({"params": np.ones(2)}),
            lambda: opt.stepping().__enter__(),
            lambda: schuss.save(tmp_path / "x", opt),
            lambda: opt.state_dict(),
            lambda: copy.deepcopy(opt),
        ]:
            with pytest.raises(RuntimeError, match="in the middle of a step"):
                call()
        update(b, np.ones((2, 2)))
    assert opt.step_count == 1
    assert opt.step(grads)


def test_after_loading_and_adding_groups():
    (opt, own), (other, others) = made(), made()
    grads = [{"a": np.ones(3)}, [np.ones((2, 2)), np.ones(4)]]
    for _ in range(2):
        other.step(grads)
    with opt.stepping() as update:
        update(own[0], np.ones(3))
    opt.load_state_dict(other.state_dict())
    for p, q in zip(own, others, strict=True):
        p[...] = q
    added, also = np.ones(2), np.ones(2)
    opt.add_param_group({"params": added})
    other.add_param_group({"params": also})
    with opt.stepping() as update:
        for p in (*own, added):
            update(p, np.ones(p.shape))
    other.step([*grads, np.ones(2)])
    assert_same(snapshot(opt)[0], snapshot(other)[0])
    assert opt._counters == other._counters


def test_wrong_calls():
    opt, (a, b, _) = made()
    stepping = opt.stepping()
    with stepping as update:
        with refused(
            ValueError,
            "an array of shape (3,) that is none of this optimizer's parameters; pass the array that it was given",
        ):
            update(a.copy(), np.ones(3))
        with refused(ValueError, "a str that is none of this optimizer's parameters; pass the array that it was given"):
            update("a", np.ones(3))
        name = "param_groups[0]['params']['a']"
        message = f"the gradient of {name} is None; leave the call out, and the step leaves the array alone"
        with refused(TypeError, message):
            update(a, None)
        update(a, np.ones(3))
        with refused(
            ValueError, f"{name} was updated in this step already; a step takes one gradient of an array, the sum"
        ):
            update(a, np.ones(3))
        with pytest.raises(ValueError, match="grad_scale"):
            update(b, np.ones((2, 2)), grad_scale=0)
    with refused(RuntimeError, "the step is over; begin the next with opt.stepping()"):
        update(b, np.ones((2, 2)))
    with refused(RuntimeError, "this step has begun already; call opt.stepping() for each step"), stepping:
        pass
    for option, value, to in [("max_grad_norm", 1.0, None), ("track_grad_norm", True, False)]:
        opt, _ = made(**{option: value})
        message = (
            f"{option} needs the norm of all gradients, which are never there together in a step array by array; use "
            f"{option}={to}"
        )
        with refused(ValueError, message), opt.stepping():
            pass
    opt, _ = made(nonfinite="skip")
    with pytest.raises(ValueError, match=r'^nonfinite="skip" cannot take back'), opt.stepping():
        pass
    ema = schuss.EMA(made()[0])
    with (
        refused(TypeError, "EMA cannot step array by array: what it does with a step is for all arrays together"),
        ema.stepping(),
    ):
        pass


def test_eval_mode_is_refused():
    w = np.ones(3)
    opt = schuss.ScheduleFreeAdamW([w])
    opt.step([np.ones(3)])
    opt.eval()
    message = "the parameters are those for evaluation; call train() before the next step"
    with refused(RuntimeError, message), opt.stepping():
        pass
    opt.train()
    with opt.stepping() as update:
        update(w, np.ones(3))
    assert opt.step_count == 2


def test_a_block_that_is_refused_counts_nothing():
    opt = schuss.ScheduleFreeSGD([np.ones(3)])
    first = opt.state_dict()
    for _ in range(3):
        with opt.stepping() as update:
            update(opt.param_groups[0]["params"][0], np.ones(3))
    opt.load_state_dict(first)
    opt.eval()
    with pytest.raises(RuntimeError, match="evaluation"):
        opt.stepping().__enter__()
    assert opt.step_count == 0


def test_changed_arrays_are_named_before_the_first_block():
    w = np.ones(3)
    opt = schuss.AdamW({"w": w})
    w.flags.writeable = False
    with (
        pytest.raises(ValueError, match=r"^params\['w'\] was resized, re-pointed, retyped or made read-only"),
        opt.stepping(),
    ):
        pass


def test_a_block_that_ends_during_an_update_counts_it():
    """A schedule ends the block, and tries to step: the update that asked for the rate is still running."""
    opt, seen = None, []

    def schedule(step):
        if opt is not None and not seen:
            stepping.__exit__()
            with pytest.raises(RuntimeError, match="in the middle of a step"):
                opt.step([np.ones(3)])
            seen.append(step)
        return 0.5

    w = np.ones(3)
    opt = schuss.SGD([w], lr=schedule)
    stepping = opt.stepping()
    update = stepping.__enter__()
    update(w, np.ones(3))
    assert (seen, opt.step_count, w[0]) == ([0], 1, 0.5)
    assert opt.step([np.ones(3)]) and w[0] == 0.0


def test_an_array_that_is_updated_meanwhile_is_refused():
    class Scale(fractions.Fraction):
        def __float__(self):
            update(w, np.ones(3))
            return 1.0

    w = np.ones(3)
    opt = schuss.SGD([w], lr=0.5)
    with opt.stepping() as update, pytest.raises(ValueError, match="was updated in this step already"):
        update(w, np.ones(3), grad_scale=Scale(1))
    assert (opt.step_count, w[0]) == (1, 0.5)


def test_threads_update_different_arrays():
    arrays = [np.ones(100_000) for _ in range(8)]
    opt, other = schuss.AdamW(arrays), schuss.AdamW([a.copy() for a in arrays])
    for t in range(5):
        grads = [np.full(100_000, 0.1 * (i + t)) for i in range(8)]
        with opt.stepping() as update:
            at_once(*(functools.partial(update, array, grad) for array, grad in zip(arrays, grads, strict=True)))
        other.step(grads)
    assert_same(snapshot(opt)[0], snapshot(other)[0])
    assert opt._counters == other._counters
