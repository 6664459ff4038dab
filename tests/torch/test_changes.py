"""What users change between steps: groups, memory, axes and states, of torch's optimizers and of ours alike."""

import copy

import pytest
import torch

import schuss.torch

BOTH = (torch.optim, schuss.torch)


def ones(*shape, **options):
    return torch.nn.Parameter(torch.ones(*shape, **options))


def step(optimizer, gradient=1.0):
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.full_like(param, gradient)
    optimizer.step()


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


def test_options_of_the_whole_in_a_group():
    message = r"^param_groups\[0\] has 'max_grad_norm', which is for the optimizer as a whole$"
    w = ones(3)
    with pytest.raises(TypeError, match=message):
        schuss.torch.SGD([{"params": [w], "max_grad_norm": 1.0}])
    optimizer = schuss.torch.SGD([w])
    step(optimizer)
    optimizer.param_groups[0]["max_grad_norm"] = 1.0
    with pytest.raises(TypeError, match=message):
        step(optimizer)
    del optimizer.param_groups[0]["max_grad_norm"]
    with pytest.raises(TypeError, match=r"^param_groups\[1\] has 'nonfinite', which"):
        optimizer.add_param_group({"params": [ones(2)], "nonfinite": "skip"})
    assert len(optimizer.param_groups) == 1
    step(optimizer)


def test_names_in_errors_of_a_step():
    a, b = ones(3), ones(2)
    groups = [{"params": [("body.weight", a)]}, {"params": [("head.bias", b)]}]
    optimizer = schuss.torch.SGD(groups, lr=0.1, nonfinite="error")
    a.grad, b.grad = torch.ones(3), torch.full((2,), float("nan"))
    with pytest.raises(FloatingPointError, match=r"^the gradient of parameter 'head\.bias' has a NaN or infinity"):
        optimizer.step()


@pytest.mark.parametrize("shape", [(), (1,)])
def test_tensors_of_one_element_in_the_place_of_numbers(shape):
    """As torch's optimizers take a rate."""
    results = []
    for number in (float, lambda value: torch.full(shape, value)):
        w = ones(4)
        optimizer = schuss.torch.AdamW([w], lr=number(0.125), max_grad_norm=number(2.0))
        w.grad = torch.arange(4.0)
        optimizer.step(grad_scale=number(0.25))
        optimizer.max_grad_norm = number(0.5)
        optimizer.step(grad_scale=number(0.25))
        assert type(optimizer.max_grad_norm) is float
        assert optimizer.step_rows([torch.ones(4)], grad_scale=number(4.0))
        optimizer.max_grad_norm = None
        with optimizer.stepping(grad_scale=number(4.0)):
            (w**2).sum().backward()
        results.append(w.detach())
    assert torch.equal(*results)


def test_what_is_beside_the_optimizers():
    assert schuss.torch.lr_scheduler is torch.optim.lr_scheduler
    assert schuss.torch.swa_utils is torch.optim.swa_utils


def test_options_of_muon_have_names():
    """torch has them in another order."""
    w = ones(3, 3)
    assert schuss.torch.Muon([w], 0.5, momentum=0.25).param_groups[0]["momentum"] == 0.25
    with pytest.raises(TypeError, match="too many positional arguments"):
        schuss.torch.Muon([w], 0.5, 0.1)


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


def test_a_frozen_parameter_of_lbfgs():
    """It sees all parameters as one vector; what has no gradient stays, as in torch."""
    results = []
    for make in BOTH:
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
