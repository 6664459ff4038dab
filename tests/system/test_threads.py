"""Threads: results do not depend on the package's threads, nor on what other Python threads do meanwhile."""

import contextlib
import copy
import functools
import pickle
import random
import re
import sys
import threading
import time

import numpy as np
import pytest
from at_once import LIMIT, at_once
from helpers import F32, F64, arrays, assert_same, build, each_optimizer, snapshot

import schuss

pytestmark = pytest.mark.usefixtures("two_threads")

LONG = 200_000  # elements: enough for several threads, and for a step that lets other Python threads run


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@each_optimizer
def test_another_number_of_threads_at_each_step(case, dtype):
    grad = np.linspace(2, -1, LONG).astype(dtype)
    results = []
    for counts in [(1, 1, 1, 1, 1), (2, 1, 5, 3, 64)]:
        opt = build(case, np.linspace(-1, 1, LONG).astype(dtype))
        for count in counts:
            schuss.set_num_threads(count)
            assert schuss.get_num_threads() == count
            opt.step(grad)
        results.append(snapshot(opt)[0])
    assert_same(results[1], results[0])


@each_optimizer
def test_optimizers_in_several_threads(case):
    """Each optimizer gets the results that it gets alone."""
    sizes, steps = [LONG, LONG + 1, 1000, 20_000], 10
    grads = [np.linspace(2, -1, n, dtype=F32) for n in sizes]

    def made():
        return [build(case, np.linspace(-1, 1, n, dtype=F32)) for n in sizes]

    def train(opt, grad):
        for _ in range(steps):
            opt.step(grad)

    together, alone = made(), made()
    at_once(*[lambda pair=pair: train(*pair) for pair in zip(together, grads, strict=True)])
    for opt, twin, grad in zip(together, alone, grads, strict=True):
        train(twin, grad)
        assert_same(snapshot(opt)[0], snapshot(twin)[0])


@pytest.mark.parametrize("size", [1000, 2_000_000])
def test_one_optimizer_in_several_threads(size):
    """Concurrent steps wait for each other or raise; only those that are taken count."""
    grad = np.linspace(2, -1, size, dtype=F32)
    opt, twin = (schuss.Adam(np.linspace(-1, 1, size, dtype=F32), lr=0.1) for _ in range(2))
    taken = []

    def train():
        for _ in range(20):
            try:
                taken.append(opt.step(grad))
            except RuntimeError as error:
                assert "in the middle of a step" in str(error)
                time.sleep(0.001)

    at_once(train, train, train)
    assert all(taken) and opt.step_count == len(taken) >= 1
    for _ in taken:
        twin.step(grad)
    assert_same(snapshot(opt)[0], snapshot(twin)[0])


@pytest.mark.parametrize("wrapped", [False, True])
def test_other_calls_during_a_step(wrapped, tmp_path):
    """Other threads may read, change, save and load: each call succeeds or raises, and steps are never partial."""
    grad = np.ones(2_000_000, F32)
    opt = schuss.Adam({"w": np.zeros(2_000_000, F32)}, lr=0.1)
    if wrapped:
        opt = schuss.Lookahead(opt, k=2)
    opt.step({"w": grad})
    state, done, loads = copy.deepcopy(opt.state_dict()), threading.Event(), []
    schuss.save(tmp_path / "file", opt)
    others = [
        lambda: opt.param_groups[0].update(eps=1e-8),
        lambda: setattr(opt, "nonfinite", "skip"),
        lambda: schuss.save(tmp_path / "file", opt),
        lambda: (opt.step_count, opt.grad_norm, repr(opt), opt.state_dict()),
        lambda: schuss.set_num_threads(1 + opt.step_count % 2),
        lambda: opt.add_param_group({"params": opt.param_groups[0]["params"]}),
        lambda: loads.append(opt.load_state_dict(state)),
        lambda: loads.append(schuss.load(tmp_path / "file", opt)),
    ]

    def train():
        try:
            for _ in range(60):
                try:
                    opt.step({"w": grad})
                except RuntimeError as error:
                    assert "in the middle of a step" in str(error)
                    time.sleep(0.002)
        finally:
            done.set()

    def disturb():
        while not done.is_set():
            for other in others:
                try:
                    other()
                except (RuntimeError, ValueError) as error:
                    assert "in the middle of" in str(error) or "same memory" in str(error)

    at_once(train, disturb)
    assert opt.step({"w": grad}) is True and len(opt.param_groups) == 1 and loads
    for array in arrays(opt):
        assert np.isfinite(array[0]) and (array == array[0]).all(), "every element took the same steps"


def by_array(opt, grads, path):
    opt = getattr(opt, "optimizer", opt)
    opt.max_grad_norm = None
    params = [array for group in opt.param_groups for array in group["params"]]
    with opt.stepping() as update:
        for param in params:
            update(param, np.ones_like(param))


ANY_THREAD = {
    "step": lambda opt, grads, path: opt.step(grads),
    "rows": lambda opt, grads, path: getattr(opt, "optimizer", opt).step_rows(grads),
    "by array": by_array,
    "read": lambda opt, grads, path: (opt.step_count, opt.grad_norm, repr(opt), opt.metrics(), opt.state_dict()),
    "set": lambda opt, grads, path: opt.param_groups[0].update(lr=0.1, weight_decay=0.0),
    "option": lambda opt, grads, path: setattr(opt, "max_grad_norm", 1e9),
    "zero": lambda opt, grads, path: (opt.grads, opt.zero_grad()),
    "save": lambda opt, grads, path: schuss.save(path, opt),
    "load": lambda opt, grads, path: schuss.load(path, opt),
    "state": lambda opt, grads, path: opt.load_state_dict(copy.deepcopy(opt).state_dict()),  # its arrays are its own
    "copy": lambda opt, grads, path: copy.deepcopy(opt).step(grads),
    "pickle": lambda opt, grads, path: pickle.loads(pickle.dumps(opt)),
    "add": lambda opt, grads, path: opt.add_param_group({"params": opt.param_groups[0]["params"]}),
    "threads": lambda opt, grads, path: schuss.set_num_threads(1 + opt.step_count % 3),
}


@pytest.mark.parametrize("size", [100, 50_000])
@pytest.mark.parametrize("kind", ["Adam", "Lookahead", "EMA", "Transformed"])
def test_every_call_from_many_threads_at_once(kind, size, tmp_path):
    """Each call succeeds or says why not; every element has taken the same steps afterwards."""
    opt = schuss.Adam({"w": np.zeros(size, F32), "b": np.zeros((size // 10, 10))}, lr=0.1)
    if kind != "Adam":
        more = ([schuss.transforms.clip(10.0)],) if kind == "Transformed" else ()
        opt = getattr(schuss, kind)(opt, *more)
    grads = {"w": np.ones(size, F32), "b": np.ones((size // 10, 10))}
    opt.step(grads)
    paths = [tmp_path / str(i) for i in range(2)]
    for path in paths:
        schuss.save(path, opt)

    def work(seed):
        rng = random.Random(seed)
        for _ in range(60):
            name = rng.choice(list(ANY_THREAD))
            try:
                ANY_THREAD[name](opt, grads, rng.choice(paths))
            except (RuntimeError, ValueError) as error:
                refused = r"in the middle of|while it was copied|same memory|max_grad_norm needs"
                assert re.search(refused, str(error)), error

    at_once(*(functools.partial(work, seed) for seed in range(6)))
    assert opt.step(grads) is True and len(opt.param_groups) == 1
    for name in [name for name in ANY_THREAD if name != "add"]:
        ANY_THREAD[name](opt, grads, paths[0])
    for array in arrays(opt):
        assert np.isfinite(array).all() and (array == array.flat[0]).all(), "every element took the same steps"


def test_updates_while_their_step_ends():
    """Each update is a part of its step, or refused: an array has taken the steps that are counted for it."""
    params, rounds, current = [np.zeros(2) for _ in range(3)], 200, []
    opt, (start, end) = schuss.SGD(params, lr=1.0), (threading.Barrier(len(params) + 1) for _ in range(2))

    def update(param):
        for _ in range(rounds):
            start.wait(LIMIT)
            try:
                current[-1](param, np.ones(2))
            except RuntimeError as error:
                assert "the step is over" in str(error)
            end.wait(LIMIT)

    def step():
        for _ in range(rounds):
            with opt.stepping() as update:
                current.append(update)
                start.wait(LIMIT)
            end.wait(LIMIT)
            opt._check_idle()
            steps, _, _, missed = opt._counters
            assert [steps - n for n in missed or [0, 0, 0]] == [-param[0] for param in params]

    at_once(step, *(functools.partial(update, param) for param in params))


def test_arrays_in_lists_and_dicts_that_other_threads_change():
    """A step takes what is there, or says what is missing, or that it changed while it was checked."""
    for kind in (list, dict):
        params = {str(i): np.zeros(3) for i in range(200)}
        grads = {name: np.ones(3) for name in params}
        as_kind = (lambda arrays: list(arrays.values())) if kind is list else dict
        opt, grads, stop = schuss.SGD(as_kind(params), lr=1.0), as_kind(grads), threading.Event()

        def train(opt=opt, grads=grads, stop=stop):
            try:
                for _ in range(2000):
                    with contextlib.suppress(ValueError, TypeError, RuntimeError):
                        opt.step(grads)
            finally:
                stop.set()

        def change(grads=grads, stop=stop):
            while not stop.is_set():
                if isinstance(grads, list):
                    grads.append(grads.pop() + 0)
                else:
                    grads["199"] = grads.pop("199") + 0

        at_once(train, change)
        assert opt.step(grads) and all((param == -opt.step_count).all() for param in params.values())


def test_a_long_step_lets_other_threads_run():
    """Python's own thread switching is turned off here, so other threads can only run while a step releases the GIL."""
    grad = np.ones(4_000_000, F32)
    opt = schuss.Adam(np.zeros_like(grad))
    rounds, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            rounds[0] += 1
            time.sleep(0)  # releases the GIL

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    sys.setswitchinterval(LIMIT)
    try:
        for _ in range(200):
            before = rounds[0]
            opt.step(grad)
            if rounds[0] > before:
                break
        else:
            pytest.fail("no other thread ever ran during a step")
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join(LIMIT)


def test_steps_are_refused_while_a_group_is_added():
    opt, messages = schuss.AdamW(np.ones(3), decay_form="independent"), []

    def step():
        try:
            opt.step(np.ones(3))
        except RuntimeError as error:
            messages.append(str(error))

    def lr(_):
        at_once(step)  # from another thread, while add_param_group is running
        return 0.1

    opt.add_param_group({"params": np.ones(2), "lr": lr})
    assert messages and all("in the middle of a step" in message for message in messages)
    assert opt.step([np.ones(3), np.ones(2)]) and opt.step_count == 1
