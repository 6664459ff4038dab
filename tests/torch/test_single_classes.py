"""What single classes of schuss.torch have of their own: methods, modes, groups that have one value in common."""

import numpy as np
import pytest
import torch
from torch_helpers import arrays, ones, step, take, tensors

import schuss
import schuss.torch


def test_groups_of_ranger():
    """What all groups have in common is no option of a group."""
    params, copies = [ones(5), ones(7)], [np.ones(5, np.float32), np.ones(7, np.float32)]
    groups = [{"params": [0], "lr": 0.1}, {"params": [1], "lr": 0.2}]
    optimizer, plain = (
        kind([{**group, "params": [own[i] for i in group["params"]]} for group in groups], k=2, alpha=0.25)
        for kind, own in ((schuss.torch.Ranger, params), (schuss.Ranger, copies))
    )
    for _ in range(4):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
        plain.step([[np.ones(5, np.float32)], [np.ones(7, np.float32)]])
    for param, expected in zip(arrays(params), copies, strict=True):
        assert param.tobytes() == expected.tobytes()
    optimizer.alpha = 0.75
    other = schuss.torch.Ranger([{"params": [param]} for param in params])
    other.load_state_dict(optimizer.state_dict())
    assert (other.k, other.alpha) == (2, 0.75)
    with pytest.raises(ValueError, match=r"^Ranger has one k, but param_groups have several$"):
        schuss.torch.Ranger([{"params": [ones(2)], "k": 3}, {"params": [ones(2)]}]).step_count  # noqa: B018


def test_schedule_free_modes():
    params, copies = [torch.nn.Parameter(t) for t in tensors(torch.float64)], arrays(tensors(torch.float64))
    optimizer, plain = schuss.torch.ScheduleFreeAdamW(params, lr=0.1), schuss.ScheduleFreeAdamW(copies, lr=0.1)
    take(optimizer, params, 1)
    plain.step(arrays(tensors(torch.float64, 1)))
    optimizer.eval()
    plain.eval()
    assert all(np.array_equal(p, q) for p, q in zip(arrays(params), copies, strict=True))
    with pytest.raises(RuntimeError, match="call train"):
        take(optimizer, params, 2)
    resumed = schuss.torch.ScheduleFreeAdamW(params, lr=0.1)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.mode == "eval"
    resumed.train()
    plain.train()
    assert all(np.array_equal(p, q) for p, q in zip(arrays(params), copies, strict=True))


def test_methods_take_and_return_tensors():
    params, copies = [torch.nn.Parameter(t) for t in tensors(torch.float64)], arrays(tensors(torch.float64))
    optimizer, plain = schuss.torch.SophiaH(params, lr=0.1), schuss.SophiaH(copies, lr=0.1)
    estimate = [t.square() for t in tensors(torch.float64, 7)]
    optimizer.update_hessian(estimate)
    plain.update_hessian(arrays(estimate))
    take(optimizer, params, 1)
    plain.step(arrays(tensors(torch.float64, 1)))
    assert all(np.array_equal(p, q) for p, q in zip(arrays(params), copies, strict=True))
    average = schuss.torch.ASGD(params)
    take(average, params, 1)
    assert torch.equal(average.averaged()[0], params[0])


def test_hooks_and_subclasses_of_asgd():
    class Own(schuss.torch.ASGD):
        pass

    w = ones(3)
    for kind in (schuss.torch.ASGD, Own):
        optimizer = kind([w])
        step(optimizer)
        assert optimizer.state_dict()["state"][0]["mu"] == 1
    seen = []
    optimizer.register_state_dict_post_hook(lambda _, state: seen.append(state["state"][0]["mu"]) or {"mine": 1})
    assert optimizer.state_dict() == {"mine": 1} and seen == [1]
    assert len(optimizer._optimizer_state_dict_post_hooks) == 1


def test_options_of_muon_have_names():
    """torch has them in another order."""
    w = ones(3, 3)
    assert schuss.torch.Muon([w], 0.5, momentum=0.25).param_groups[0]["momentum"] == 0.25
    with pytest.raises(TypeError, match="too many positional arguments"):
        schuss.torch.Muon([w], 0.5, 0.1)


def test_a_frozen_parameter_of_lbfgs():
    """It sees all parameters as one vector; what has no gradient stays, as in torch."""
    results = []
    for make in (torch.optim, schuss.torch):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)).double()
        model[0].requires_grad_(False)
        optimizer, x = make.LBFGS(model.parameters(), lr=0.5), torch.ones(4, 2, dtype=torch.float64)

        def closure(model=model, optimizer=optimizer, x=x):
            optimizer.zero_grad()
            loss = (model(x) - 1.0).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        results.append([p.detach() for p in model.parameters()])
    torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-9)
