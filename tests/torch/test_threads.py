"""Several threads at one optimizer: they take turns, and no step is lost or taken twice."""

import copy
import threading

import pytest
import torch
from at_once import at_once
from torch_helpers import ones

import schuss.torch
from schuss.torch import _lock


@pytest.mark.parametrize("first", [0, 1])
def test_steps_in_several_threads(first):
    for _ in range(4):
        w = ones(100_000)
        optimizer = schuss.torch.AdamW([w], lr=0.125, weight_decay=0.0, eps=0.0)
        w.grad = torch.ones_like(w)
        for _ in range(first):
            optimizer.step()
        at_once(*[lambda optimizer=optimizer: [optimizer.step() for _ in range(10)]] * 3)
        assert optimizer.step_count == optimizer.state[w]["step"] == 30 + first
        assert torch.allclose(w, torch.tensor(1.0 - 0.125 * (30 + first)), atol=1e-4)


READS = {
    "norm": lambda optimizer: optimizer.grad_norm,
    "count": lambda optimizer: optimizer.step_count,
    "log": lambda optimizer: optimizer.metrics(),
    "save": lambda optimizer: optimizer.state_dict(),
}


@pytest.mark.parametrize("read", READS)
def test_reading_beside_steps(read):
    """The first step makes a plan, and so does the one after a group was added; a reader must not make another."""
    for _ in range(8):
        w, stop = ones(100_000), threading.Event()
        optimizer = schuss.torch.AdamW([w], lr=0.125, weight_decay=0.0, eps=0.0, max_grad_norm=1e9)
        w.grad = torch.ones_like(w)

        def work(optimizer=optimizer, stop=stop):
            try:
                for t in range(12):
                    if t == 6:
                        optimizer.add_param_group({"params": [ones(3)]})
                    optimizer.step()
            finally:
                stop.set()

        def log(optimizer=optimizer, stop=stop):
            while not stop.is_set():
                READS[read](optimizer)

        at_once(work, log)
        assert optimizer.step_count == optimizer.state[w]["step"] == 12
        assert torch.allclose(w, torch.tensor(1.0 - 0.125 * 12), atol=1e-4)


USES = {
    "step": lambda optimizer: optimizer.step(lambda: 0.0),
    "read": lambda optimizer: optimizer.step_count,
    "set": lambda optimizer: setattr(optimizer, "max_grad_norm", 1.0),
    "call": lambda optimizer: optimizer.metrics(),
    "begin": lambda optimizer: optimizer.stepping().__enter__(),
    "add": lambda optimizer: optimizer.add_param_group({"params": [ones(2)]}),
    "save": lambda optimizer: optimizer.state_dict(),
    "load": lambda optimizer: optimizer.load_state_dict({}),
    "copy": copy.deepcopy,
}


@pytest.mark.parametrize("use", USES)
def test_a_thread_that_the_step_waits_for(use, monkeypatch):
    """It is refused after a while, and the thread of the step can read what it could without others."""
    monkeypatch.setattr(_lock, "PATIENCE", 0.05)
    w = ones(3)
    optimizer, counts = schuss.torch.NAG([w], lr=0.5), []

    def closure():
        counts.append(optimizer.step_count)
        with pytest.raises(RuntimeError, match=r"^this optimizer is in the middle of a step, .* one place at a time$"):
            at_once(lambda: USES[use](optimizer))
        w.grad = torch.ones(3)
        return 1.0

    for _ in range(2):
        assert optimizer.step(closure) == 1.0
    assert counts == [0, 1] and optimizer.step_count == 2 and len(optimizer.param_groups) == 1
    at_once(lambda: optimizer.step(lambda: 0.0))
    assert optimizer.step_count == 3


def test_hooks_use_the_optimizer():
    w, seen = ones(3), []
    optimizer = schuss.torch.SGD([w], lr=0.5)
    optimizer.register_step_post_hook(lambda own, *_: seen.append(own.step_count))
    optimizer.register_load_state_dict_post_hook(lambda own: seen.append(len(own.state_dict()["state"])))
    w.grad = torch.ones(3)
    optimizer.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert seen == [1, 1]
