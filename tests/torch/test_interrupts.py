"""An exception between any two instructions of Python, in calls that change settings of torch's groups and our own."""

import signal

import pytest
import torch
from interrupts import check_all_or_nothing

import schuss.torch

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that sends signals")

#: So many that writing to them takes much of the time of a call.
GROUPS = 40


def step(optimizer):
    if hasattr(optimizer, "train"):
        optimizer.train()
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.full_like(param, 0.25)
    optimizer.step()


def made(name, **options):
    params = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(GROUPS)]
    optimizer = getattr(schuss.torch, name)(params, lr=0.5, **options)
    step(optimizer)
    step(optimizer)
    return optimizer


def image(optimizer):
    """All that the groups, the optimizer within, and a new one that is made from the options would have."""
    params = [param.detach().numpy().copy() for group in optimizer.param_groups for param in group["params"]]
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    within = optimizer._plan.optimizer
    own = {name: getattr(within, name) for name in (*within._settings, "step_count")}
    return params, repr((groups, own, optimizer._options))


CALLS = {
    "eval": ("ScheduleFreeSGD", lambda optimizer: optimizer.eval()),
    "k": ("Ranger", lambda optimizer: setattr(optimizer, "k", 3)),
    "an option": ("Ranger", lambda optimizer: setattr(optimizer, "max_grad_norm", 0.5)),
}


@pytest.mark.parametrize("name", CALLS)
def test_all_or_nothing(name):
    kind, call = CALLS[name]
    check_all_or_nothing(lambda: made(kind), call, step, image, name)
