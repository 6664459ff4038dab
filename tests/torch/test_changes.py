"""What users change between steps: groups, memory, axes and states, of torch's optimizers and of ours alike."""

import copy

import pytest
import torch
from torch_helpers import ones, step

import schuss.torch

BOTH = (torch.optim, schuss.torch)


def replaced_dict(make):
    p = ones(1)
    optimizer = make.SGD([p], lr=1.0)
    step(optimizer)
    optimizer.param_groups[0] = {**optimizer.param_groups[0], "lr": 0.25}
    step(optimizer)
    return p


def replaced_list(make):
    p = ones(1)
    optimizer = make.SGD([p], lr=1.0)
    step(optimizer)
    optimizer.param_groups = [dict(group, lr=0.25) for group in optimizer.param_groups]
    step(optimizer)
    optimizer.param_groups[0]["lr"] = 4.0
    step(optimizer)
    return p


def moved_between_groups(make):
    a, b, c = ones(1), ones(1), ones(1)
    optimizer = make.SGD([{"params": [a]}, {"params": [b, c], "lr": 0.25}], lr=1.0, momentum=0.5)
    step(optimizer)
    first, second = (group["params"] for group in optimizer.param_groups)
    first.append(second.pop(0))
    step(optimizer)
    return torch.cat([a, b, c])


def transposed(make):
    w = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = make.SGD([w], lr=1.0)
    for _ in range(2):
        w.grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        optimizer.step()
        w.data = w.data.t()
    return w


def shortened(make):
    w = ones(4, 2)
    optimizer = make.SGD([w], lr=1.0)
    step(optimizer)
    w.data, w.grad = w.data[:3], None
    step(optimizer)
    return w


def other_dtype(make):
    w = torch.nn.Parameter(torch.zeros(4, dtype=torch.float16))
    optimizer = make.SGD([w], lr=1.0)
    step(optimizer)
    w.data, w.grad = w.data.zero_().view(torch.bfloat16), None
    step(optimizer)
    return w


def state_given_other_memory(make):
    w = ones(3)
    optimizer = make.SGD([w], lr=1.0, momentum=0.5)
    step(optimizer)
    optimizer.state[w]["momentum_buffer"].data = torch.zeros(3)
    step(optimizer)
    return w, optimizer.state_dict()["state"][0]["momentum_buffer"]


def state_put_into_shared_memory(make):
    w = ones(3)
    optimizer = make.Adam([w], lr=1.0)
    step(optimizer)
    for value in optimizer.state[w].values():
        value.share_memory_()
    step(optimizer)
    step(optimizer, 0.0)
    return w, *(optimizer.state_dict()["state"][0][name] for name in ("step", "exp_avg", "exp_avg_sq"))


def step_put_into_shared_memory(make):
    a, b = ones(3), ones(2)
    optimizer = make.Adadelta([a, b])
    step(optimizer)
    optimizer.state[b]["step"].share_memory_()
    step(optimizer)
    return optimizer.state_dict()["state"][1]["step"]


def own_entries(make):
    w = ones(3)
    optimizer = make.SGD([w], lr=1.0, momentum=0.5)
    optimizer.state[w]["mask"] = torch.ones(2)  # before the first step
    step(optimizer)
    for i in range(2):
        optimizer.state[w]["slow"] = torch.full((3,), float(i))
        step(optimizer)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    w.data = w.data.clone()
    step(optimizer)
    return w, optimizer.state[w]["mask"], optimizer.state[w]["slow"]


def cleared_by_a_hook(make):
    w = ones(3)
    optimizer = make.SGD([w], lr=1.0, momentum=0.5)
    step(optimizer)
    optimizer.register_load_state_dict_post_hook(lambda optimizer: optimizer.state.clear())
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert not optimizer.state
    step(optimizer)
    return w


@pytest.mark.parametrize("change", [
    replaced_dict, replaced_list, moved_between_groups, transposed, shortened, other_dtype, state_given_other_memory,
    state_put_into_shared_memory, step_put_into_shared_memory, own_entries, cleared_by_a_hook,
], ids=lambda change: change.__name__)  # fmt: skip
def test_it_is_followed_as_by_torch(change):
    theirs, ours = map(change, BOTH)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_new_memory_and_replaced_states():
    """`param.data = ...` and new entries in `state` count, as with torch's own optimizers."""
    results = []
    for kind in (torch.optim.Adam, schuss.torch.Adam):
        param = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = kind([param], lr=0.1)
        step(optimizer, 1.0)
        param.data = torch.tensor([5.0, 6.0, 7.0], dtype=torch.float64)
        step(optimizer, 2.0)
        optimizer.state[param]["exp_avg"] = torch.zeros(3, dtype=torch.float64)
        step(optimizer, 3.0)
        optimizer.state[param]["exp_avg_sq"].mul_(2.0)
        step(optimizer, 4.0)
        optimizer.state.clear()
        step(optimizer, 5.0)
        results.append((param.detach(), float(optimizer.state[param]["step"])))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-12, atol=0)
    assert results[1][1] == results[0][1] == 1


def test_a_replaced_user_entry_makes_no_new_plan():
    w = ones(3)
    optimizer = schuss.torch.SGD([w], lr=1.0)
    step(optimizer)
    plan = optimizer._plan
    for _ in range(2):
        optimizer.state[w]["slow"] = w.detach().clone()
        step(optimizer)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # adds a key to the groups
    step(optimizer)
    assert optimizer._plan is plan


def test_states_of_other_classes_are_still_refused():
    w = ones(3)
    optimizer = schuss.torch.Adam([w])
    optimizer.state[w] = {"momentum_buffer": torch.ones(3)}
    with pytest.raises(ValueError, match=r"lacks 'exp_avg': it has momentum_buffer; it must come from the same"):
        step(optimizer)


LOOKS = {
    "set an option": lambda optimizer: setattr(optimizer, "max_grad_norm", 100.0),
    "read the norm": lambda optimizer: optimizer.grad_norm,
    "read the count": lambda optimizer: optimizer.step_count,
    "log": lambda optimizer: optimizer.metrics(),
    "train": lambda optimizer: getattr(optimizer, "train", lambda: None)(),
    "eval": lambda optimizer: getattr(optimizer, "eval", lambda: None)(),
    "step without gradients": lambda optimizer: None if hasattr(optimizer, "eval") else optimizer.step(),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    ("name", "options"),
    [("SGD", dict(master_weights=True)), ("ScheduleFreeSGD", {}), ("DoG", {})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weights_loaded_before_the_first_step_count(name, options, look):
    results = []
    for first in (lambda _: None, LOOKS[look]):
        w = ones(3, dtype=torch.bfloat16)
        optimizer = getattr(schuss.torch, name)([w], lr=0.5, **options)
        first(optimizer)
        w.data.fill_(5.0)
        getattr(optimizer, "train", lambda: None)()
        for _ in range(3):
            step(optimizer)
        results.append(w.detach())
    assert torch.equal(*results) and results[0][0] > 2.0


def test_what_was_done_before_the_first_step_stays():
    w = ones(3)
    optimizer = schuss.torch.SophiaH([w], lr=0.5)
    optimizer.update_hessian([torch.full((3,), 100.0)])
    assert optimizer.metrics()["step"] == 0
    step(optimizer)
    assert optimizer.state[w]["h"].min() > 0
    counted = schuss.torch.Adam([ones(3)])
    counted.step_count = 7
    step(counted)
    assert counted.step_count == 8


def test_a_method_that_was_looked_up_before_a_new_plan():
    """A framework may keep it."""
    w = ones(3)
    optimizer = schuss.torch.ScheduleFreeSGD([w], lr=0.5)
    switch = optimizer.eval
    for _ in range(3):
        step(optimizer)
    twin, kept = copy.deepcopy(optimizer), w.detach().clone()
    switch()
    twin.eval()
    assert optimizer.mode == "eval" and not torch.equal(w, kept)
    assert torch.equal(w, twin.param_groups[0]["params"][0])


def test_counts_and_norms_outlive_a_plan():
    w = ones(3)
    optimizer = schuss.torch.SGD([w], lr=0.5, nonfinite="skip", track_grad_norm=True, max_grad_norm=4.0)
    step(optimizer, float("nan"))
    step(optimizer, 4.0)
    before = optimizer.metrics()
    assert (before["skipped_steps"], optimizer.grad_norm) == (1, pytest.approx(48**0.5))
    for _ in range(2):
        w.data = w.data.clone()
        assert optimizer.metrics() == before
    optimizer.track_grad_norm, optimizer.max_grad_norm = False, None
    w.data = w.data.clone()
    step(optimizer)
    assert (optimizer.skipped_steps, optimizer.grad_norm) == (1, None)
