"""The base class of wrappers, tested with a small wrapper: an exponential moving average."""

import contextlib
import copy
import pickle
import re
import threading

import numpy as np
import pytest
from helpers import assert_same

import schuss
from schuss import _schuss
from schuss._backends import tools
from schuss._core.hyperparameters import Fraction, check_of
from schuss.wrappers.base import Wrapper


class Ema(Wrapper):
    """An exponential moving average of the parameters, updated after each step."""

    _own_settings = {"decay": check_of(Fraction)}
    _wrapper = "Ema"
    _shown = "the average"

    def __init__(self, optimizer, decay=0.5):
        self._wrap(optimizer, decay=decay)

    def _new_extra(self, param, states, rule_states):
        return [param.copy()]

    def _extra_names(self, i):
        return ["average"]

    def _after(self, steps):
        calls = []
        for (average,), param in zip(self._extra, self._params, strict=True):
            difference = np.empty_like(average)
            calls += [
                (np.subtract, (param, average, difference)),
                (np.multiply, (difference, 1 - self._decay, difference)),
                (np.add, (average, difference, average)),
            ]
        return _schuss.Changes(calls=calls)

    def evaluate(self):
        return self._showing([average for (average,) in self._extra])


def made(decay=0.5):
    w = np.array([1.0, 2.0])
    return w, Ema(schuss.SGD({"w": w}, lr=0.5, momentum=0.5), decay)


def test_a_wrapper_is_used_like_an_optimizer(tmp_path):
    w, opt = made()
    opt.max_grad_norm = 10.0
    assert opt.optimizer.max_grad_norm == opt.max_grad_norm == 10.0
    opt.grads["w"] += 1.0
    assert opt.step(zero_grads=True) and opt.step_count == opt.optimizer.step_count == 1
    assert w.tolist() == [0.5, 1.5] and opt.grad_norm == np.sqrt(2.0) and not opt.grads["w"].any()
    state = opt.state_dict()
    assert state["optimizer"] == "Ema(SGD)" and list(state["state"][0]) == ["b", "average"]
    assert state["state"][0]["average"]["w"].tolist() == [0.75, 1.75]
    with opt.evaluate():
        assert w.tolist() == [0.75, 1.75]
        with pytest.raises(RuntimeError, match=r"^the parameters are at the average; leave evaluate"):
            opt.step({"w": w})
    assert w.tolist() == [0.5, 1.5]
    schuss.save(tmp_path / "file", opt)
    x, other = made()
    schuss.load(tmp_path / "file", other)
    for o, p in ((opt, w), (other, x)):
        o.step({"w": np.ones(2)})
        o.param_groups[0]["lr"] = 0.25
        o.add_param_group({"params": [p.copy()]})
        o.step([{"w": np.ones(2)}, [np.ones(2)]])
    assert_same([w, *opt._states[0], *opt._states[1]], [x, *other._states[0], *other._states[1]])
    assert repr(opt).startswith("Ema(decay=0.5) around SGD: step 3, 2 arrays")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))], ids=["copy", "pickle"])
def test_copies(copied):
    w, opt = made(0.25)
    opt.step({"w": w.copy()})
    again = copied(opt)
    assert type(again) is Ema and again._decay == 0.25 and again.optimizer is not opt.optimizer
    for o in (opt, again):
        o.step({"w": np.ones(2)})
    assert_same([*opt._params, *opt._states[0]], [*again._params, *again._states[0]])


def test_wrong_calls():
    w, opt = made()
    with pytest.raises(TypeError, match=r"^Ema wraps an optimizer, got int$"):
        Ema(3)
    with pytest.raises(ValueError, match=r"^decay must be a number >= 0 and < 1, got 1\.0$"):
        Ema(opt.optimizer, 1.0)
    with pytest.raises(TypeError, match="make one of its subclasses"):
        Wrapper(opt.optimizer)
    opt.optimizer.add_param_group({"params": [w.copy()]})
    with pytest.raises(
        ValueError, match=r"^a group was added to the wrapped optimizer itself, and has no average; make a"
    ):
        opt.step([{"w": w.copy()}, [w.copy()]])
    with pytest.raises(AttributeError, match="no attribute '_nonsense'"):
        opt._nonsense  # noqa: B018


def test_a_group_that_a_wrapper_without_arrays_does_not_know():
    for wrap in (schuss.SAM, lambda opt: schuss.Transformed(opt, [schuss.transforms.accumulate(2)])):
        opt = wrap(schuss.SGD([np.ones(2)]))
        opt.optimizer.add_param_group({"params": [np.ones(2)]})
        with pytest.raises(ValueError, match=r"^a group was added to the wrapped optimizer itself; make a new "):
            opt.state_dict()


AVERAGES = {
    "EMA": schuss.EMA,
    "SWA": schuss.SWA,
    "Polyak": schuss.Polyak,
    "Lookahead": schuss.Lookahead,
    "Transformed": lambda opt: schuss.Transformed(opt, [schuss.transforms.clip(1.0)]),
}


@pytest.mark.parametrize(
    ("outer", "inner", "name"),
    [("EMA", "EMA", "decay"), ("EMA", "SWA", "update_every"), ("SWA", "EMA", "update_every"),
     ("Polyak", "EMA", "updates"), ("Lookahead", "Lookahead", "k"), ("Transformed", "Transformed", "counts")],
)  # fmt: skip
def test_wrappers_whose_states_have_the_same_names(outer, inner, name):
    """A checkpoint would have one value for both."""
    made = AVERAGES[inner](schuss.SGD(np.ones(2)))
    between = schuss.EMA(made) if inner in ("Lookahead", "Transformed") else schuss.Lookahead(made)
    with pytest.raises(TypeError, match=rf"^{outer} cannot wrap .*\): both have '{name}' in their state"):
        AVERAGES[outer](between)


def test_two_averages_of_one_optimizer(tmp_path):
    """Side by side, each with a checkpoint of its own."""

    def make():
        opt = schuss.SGD(np.ones(2), lr=0.5)
        return schuss.EMA(opt, decay=0.5), schuss.SWA(opt)

    one, other = make()
    for _ in range(3):
        one.step(np.ones(2))
        other.update()
    again, beside = make()
    for k, (saved, loaded) in enumerate(((one, again), (other, beside))):
        schuss.save(tmp_path / str(k), saved)
        schuss.load(tmp_path / str(k), loaded)
    assert_same([again.average, beside.average], [one.average, other.average])
    assert (one.average != other.average).all() and (again.updates, beside.updates) == (3, 3)


WRAPPED = {"average": lambda opt: schuss.EMA(opt, decay=0.5), "slow": lambda opt: schuss.Lookahead(opt, k=1)}


@pytest.mark.parametrize("state", WRAPPED)
def test_a_group_is_added_after_steps(state):
    opt = WRAPPED[state](schuss.SGD([{"params": [np.ones(2)]}], lr=0.5))
    opt.step([[np.ones(2)]])
    opt.add_param_group({"params": [np.full(2, 8.0)]})
    opt.step([[np.ones(2)], [np.ones(2)]])
    assert opt.state_dict()["state"][1][state][0].tolist() == [7.75, 7.75]


class Counted(Wrapper):
    """Counts what follows its steps."""

    _wrapper = "Counted"

    def __init__(self, optimizer):
        self.followed = []
        self._wrap(optimizer)

    def _after(self, steps):
        return _schuss.Changes(calls=[(self.followed.append, (steps,))])


IN_USE = "^this optimizer is in the middle of a step, .* use it from one place at a time$"


def in_a_thread(call):
    """Calls a function in another thread; returns the exception that it raised, if any."""
    raised = []

    def catch():
        try:
            call()
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=catch)
    thread.start()
    thread.join()
    return raised[0] if raised else None


@pytest.mark.parametrize("between", [lambda opt: opt, schuss.Lookahead, lambda opt: schuss.Transformed(opt, [])])
@pytest.mark.parametrize("call", [0, 1])
def test_steps_of_wrapped_optimizers_in_a_closure(between, call):
    """They are refused, here and in other threads, and what follows the step around all follows that alone."""
    w = np.array([3.0, -4.0])
    inner = schuss.SGD(w, lr=0.5)
    wrapped = between(inner)
    sam = schuss.SAM(wrapped, rho=1.0)
    opt = Counted(Counted(sam))
    attempts = [
        lambda: inner.step(np.ones(2)),
        lambda: inner.step_rows(np.ones(2)),
        lambda: wrapped.step(np.ones(2)),
        lambda: sam.step(w.copy),
        lambda: sam.first_step(np.ones(2)),
        lambda: opt.optimizer.step(w.copy),
        lambda: opt.step(w.copy),
    ]
    calls = []

    def closure():
        calls.append(w.copy())
        if len(calls) == call + 1:
            for attempt in attempts:
                with pytest.raises(RuntimeError, match=IN_USE):
                    attempt()
                assert re.match(IN_USE, str(in_a_thread(attempt)))
        return w.copy()

    assert opt.step(closure)
    np.testing.assert_allclose(w, [1.2, -1.6], rtol=1e-12)
    assert len(calls) == 2 and opt.step_count == 1
    assert opt.followed == opt.optimizer.followed == [1]
    assert opt.step(w.copy) and inner.step(np.zeros(2))
    assert opt.followed == opt.optimizer.followed == [1, 2]


@pytest.mark.parametrize("where", ["swap", "evaluate", "ascended", "closure", "array by array"])
def test_no_wrapper_is_made_while_parameters_have_other_values(where):
    w = np.array([3.0, -4.0])
    inner = schuss.NAG(w, lr=0.5) if where == "closure" else schuss.SGD(w, lr=0.5)
    outer = {"swap": schuss.SWA, "evaluate": schuss.Lookahead, "ascended": schuss.SAM}.get(where, lambda opt: opt)(
        inner
    )

    def attempts():
        wrapped = [(schuss.Lookahead, inner), (schuss.EMA, inner), (schuss.EMA, outer), (Ema, outer)]
        for kind, opt in wrapped:
            with pytest.raises(RuntimeError, match=r"inside swap\(\)|the parameters are at .* first$"):
                kind(opt)
        return w.copy()

    if where == "closure":
        inner.step(attempts)
    elif where == "array by array":
        with inner.stepping():
            attempts()
    elif where == "ascended":
        outer.step(attempts)
        outer.first_step(w.copy())
        attempts()
        outer.second_step(w.copy())
    else:
        outer.step(w.copy())
        with getattr(outer, where)():
            attempts()
    average = schuss.EMA(inner).average  # now it is made
    assert np.array_equal(average, w)


def test_what_follows_a_step_is_not_for_those_of_other_threads():
    class Slow(schuss.SGD):
        def step(self, grads):
            assert in_a_thread(lambda: super(Slow, self).step(grads)) is None
            return super().step(grads)

    opt = Counted(Slow(np.ones(2), lr=0.5))
    opt.step(np.ones(2))
    assert opt.step_count == 2 and opt.followed == [1]


def test_what_follows_a_step_is_not_for_one_that_reading_gradients_takes():
    inner = schuss.SGD(np.ones(2), lr=0.5)
    opt = Counted(schuss.Transformed(inner, []))

    class Gradient:
        def __array__(self, dtype=None, copy=None):
            inner.step(np.ones(2))
            assert not opt.followed
            return np.ones(2)

    opt.step(Gradient())
    assert opt.step_count == 2 and opt.followed == [1]


def test_what_follows_a_failed_step_does_not_follow_the_next():
    opt = Counted(schuss.Transformed(schuss.SGD(np.ones(2), nonfinite="skip"), [schuss.transforms.accumulate(2)]))
    for grads in (np.ones(3), np.ones(2), np.array([np.nan, 1.0])):  # refused, kept for the next step, and skipped
        with contextlib.suppress(ValueError):
            assert not opt.step(grads)
        opt.optimizer.optimizer.step(np.zeros(2))
    assert not opt.followed and opt.skipped_steps == 1
    assert not opt.step(np.ones(2)) and opt.step(np.ones(2)) and opt.followed == [4]


@pytest.mark.parametrize("call", [0, 1])
def test_options_in_a_closure(call):
    w = np.ones(2)
    opt = schuss.EMA(schuss.Lookahead(schuss.SAM(schuss.SGD(w, lr=0.5)), k=3))
    lookahead, sam = opt.optimizer, opt.optimizer.optimizer
    values = [(opt, "decay", 0.5), (opt, "update_every", 2), (lookahead, "k", 2), (lookahead, "alpha", 0.25)]
    values += [(lookahead, "pullback", "reset"), (sam, "rho", 0.5), (opt, "max_grad_norm", 1.0)]
    calls = []

    def closure():
        calls.append(None)
        for owner, name, value in values if len(calls) == call + 1 else []:
            before = getattr(owner, name)
            with pytest.raises(RuntimeError, match=IN_USE):
                setattr(owner, name, value)
            assert getattr(owner, name) == before
        return w.copy()

    assert opt.step(closure) and len(calls) == 2
    for owner, name, value in values:
        setattr(owner, name, value)
        assert getattr(owner, name) == value


@pytest.mark.parametrize("inside", [schuss.EMA, lambda opt: schuss.Transformed(opt, [schuss.transforms.accumulate(1)])])
def test_lookahead_around_a_wrapper_pulls_the_master_copies(inside):
    """They are the innermost optimizer's last states, not the wrapper's."""

    def after_steps(wrap):
        params = [np.ones(3, np.float16)]
        opt = wrap(schuss.Adam(params, lr=2.0**-9, master_weights=True))
        for _ in range(4):
            opt.step([np.array([1.0, -1.0, 0.5])])
        return params

    twice = after_steps(lambda opt: schuss.Lookahead(inside(opt), k=2))
    assert_same(twice, after_steps(lambda opt: schuss.Lookahead(opt, k=2)))


def test_memory_that_wrappers_have_reserved_within_other():
    """Of wrappers that are gone, the ranges stay; what is written then may lie around them."""
    memory = np.ones(1000)
    opt = schuss.SGD([np.ones(100)])
    opt._reserved = [memory]
    opt._reserved = [memory[100:110], memory[:50]]
    for part in (memory[500:600], memory[105:205], memory[900:]):
        assert _schuss.apart(opt, [part[:100]], False) is None
    assert _schuss.apart(opt, [np.ones(100)], False) is not None


def test_lookahead_around_an_average_resets_the_optimizer_alone():
    """The average is a state of its wrapper, and goes on as without the Lookahead."""
    w, params = np.ones(2), np.ones(2)
    opt = schuss.Lookahead(schuss.EMA(schuss.SGD(w, lr=0.1, momentum=0.9), decay=0.5), k=2, alpha=1.0, pullback="reset")
    twin = schuss.EMA(schuss.SGD(params, lr=0.1, momentum=0.9), decay=0.5)
    for _ in range(2):
        opt.step(np.ones(2))
        twin.step(np.ones(2))
    state = opt.state_dict()["state"][0]
    assert not state["b"].any()
    assert_same([state["average"], w], [twin.average, params])


def test_attributes_are_put_back_if_the_work_beside_them_cannot_run():
    target, source = np.zeros(1 << 21), np.ones(1 << 21)
    job = tools.job("copy", [target], grads=[source])
    _, opt = made()
    stop, refused = threading.Event(), None

    def run():
        while not stop.is_set():
            with contextlib.suppress(RuntimeError):
                job.run()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(10_000):
            opt._decay = 0.5
            try:
                _schuss.Changes([(opt, "_decay", 0.25)], jobs=[job]).make()
            except RuntimeError as error:
                refused = error
                break
    finally:
        stop.set()
        thread.join()
    assert str(refused) == "it is running already" and opt._decay == 0.5
