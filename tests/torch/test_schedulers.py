"""Schedulers of torch that set the rate or the momentum of our groups, and what they leave there."""

import copy

import pytest
import torch
from torch_helpers import ones, step

import schuss.torch


@pytest.mark.parametrize(
    ("name", "options"), [("AdaBound", dict(gamma=1.0)), ("AdamW", dict(decay_form="independent"))]
)
def test_a_scheduler_leaves_the_first_rate_alone(name, options):
    """The bounds of AdaBound are relative to it; torch's schedulers overwrite ``initial_lr``."""
    results = []
    for resumed in (False, True):
        w = ones(3)
        optimizer = getattr(schuss.torch, name)([w], lr=0.01, **options)
        step(optimizer)
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)
        if resumed:
            saved, optimizer = optimizer.state_dict(), getattr(schuss.torch, name)([w], lr=0.01, **options)
            optimizer.load_state_dict(saved)
        step(optimizer)
        results.append(w.detach())
    assert torch.equal(*results)


@pytest.mark.parametrize("tensor", [False, True])
def test_rounding_errors_below_a_rate_of_zero(tensor):
    """torch's schedulers leave them, and they are in checkpoints; a rate that is really negative is refused."""
    w = ones(3)
    optimizer = schuss.torch.SGD([w], lr=torch.tensor(0.1) if tensor else 0.1)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, end_factor=0.0, total_iters=5)
    for _ in range(5):
        step(optimizer)
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] < 0
    before = w.detach().clone()
    step(optimizer)
    assert torch.equal(w, before) and optimizer.lr == 0
    resumed = schuss.torch.SGD([w], lr=0.1)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.lr == 0
    optimizer.param_groups[0]["lr"] = -1e-9
    with pytest.raises(ValueError, match=r"^lr must be a number >= 0, got -1e-09"):
        step(optimizer)


def test_the_first_rate_of_an_earlier_version():
    w = ones(3)
    optimizer = schuss.torch.AdaBound([w], lr=0.01)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["initial_lr"] = saved["param_groups"][0].pop("first_lr") / 2
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["first_lr"] == 0.005


@pytest.mark.parametrize("kind", ["OneCycleLR", "CyclicLR"])
def test_schedulers_cycle_the_momentum_of_muon(kind):
    """As that of torch's, which has no betas; they are for the steps of AdamW."""
    w, b = ones(3, 3), ones(3)
    optimizer = schuss.torch.Muon([w], momentum=0.9, betas=(0.8, 0.9))
    optimizer.add_param_group({"params": [b], "fallback": True})
    optimizer = copy.deepcopy(optimizer)
    w, b = (group["params"][0] for group in optimizer.param_groups)
    more = dict(total_steps=10) if kind == "OneCycleLR" else dict(base_lr=0.01)
    scheduler = getattr(torch.optim.lr_scheduler, kind)(optimizer, max_lr=0.1, **more)
    found = []
    for _ in range(4):
        w.grad, b.grad = torch.eye(3), torch.ones(3)
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["momentum"])
    theirs = torch.optim.SGD([w], lr=0.1, momentum=0.9)
    scheduler = getattr(torch.optim.lr_scheduler, kind)(theirs, max_lr=0.1, **more)
    for momentum in found:
        theirs.step()
        scheduler.step()
        assert momentum == theirs.param_groups[0]["momentum"]
    assert len(set(found)) == 4
    assert [group["betas"] for group in optimizer.param_groups] == [(0.8, 0.9)] * 2
