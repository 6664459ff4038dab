"""Training goes on bit for bit after a copy, a checkpoint, or a change for which a new plan is made."""

import copy
import io
import pickle

import pytest
import torch
from torch_helpers import ones

import schuss.torch
from schuss import schedules
from schuss.torch import AdamW


def alternate(optimizer, steps, first=0):
    """Steps in which the parameters take turns, so that each misses some."""
    params = optimizer.param_groups[0]["params"]
    for t in range(first, first + steps):
        optimizer.zero_grad()
        params[t % 2].grad = torch.full_like(params[0], 1.0 + t % 3)
        optimizer.step()


ALTERNATING = {
    "a schedule": lambda params: schuss.torch.Adam(params, lr=schedules.linear(1.0, 0.0, 20)),
    "random bits": lambda params: schuss.torch.AdamW(
        params, lr=0.1, state_dtype="bfloat16", state_rounding="stochastic"
    ),
    "int8": lambda params: AdamW(params, lr=0.1, state_dtype="int8", state_rounding="stochastic"),
    "every kth step": lambda params: schuss.torch.Ranger(params, lr=0.1, k=4),
}


def loaded(optimizer, make):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = make([torch.nn.Parameter(param.detach().clone()) for param in optimizer.param_groups[0]["params"]])
    other.load_state_dict(torch.load(file, weights_only=False))
    return other


def moved(optimizer, _):
    other = copy.deepcopy(optimizer)
    other.step_count  # noqa: B018  # makes a plan
    for param in other.param_groups[0]["params"]:
        param.data = param.data.clone()
    return other


def extended(optimizer, _):
    other = copy.deepcopy(optimizer)
    other.step_count  # noqa: B018
    other.add_param_group({"params": [ones(2)]})
    return other


WAYS = {
    "load": loaded,
    "deepcopy": lambda optimizer, _: copy.deepcopy(optimizer),
    "pickle": lambda optimizer, _: pickle.loads(pickle.dumps(optimizer)),
    "moved": moved,
    "a group": extended,
    "twice": lambda optimizer, make: loaded(loaded(optimizer, make), make),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", ALTERNATING)
def test_steps_that_every_parameter_has_missed_some_of_count(what, way):
    make = ALTERNATING[what]
    optimizer = make([ones(300), ones(300)])
    alternate(optimizer, 10)
    other = WAYS[way](optimizer, make)
    assert other.step_count == optimizer.step_count == 10
    for own in (optimizer, other):
        alternate(own, 7, 10)
    assert other.step_count == 17
    for one, two in zip(optimizer.param_groups[0]["params"], other.param_groups[0]["params"], strict=True):
        assert torch.equal(one, two)
    assert [float(entry["step"]) for entry in other.state.values()][:2] == [9, 8]


@pytest.mark.parametrize("make", [schuss.torch.AdaBound, lambda p, lr: AdamW(p, lr, decay_form="independent")])
def test_a_rate_that_is_0_in_the_checkpoint(make):
    """As at the end of a cosine: what divides by the first rate has it from the checkpoint."""
    optimizer = make([ones(3)], lr=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert optimizer.lr == 0
    other = loaded(optimizer, lambda params: make(params, lr=0.25))
    for own in (optimizer, other):
        own.param_groups[0]["lr"] = 0.125
        own.param_groups[0]["params"][0].grad = torch.ones(3)
        own.step()
    one, two = (own.param_groups[0]["params"][0] for own in (optimizer, other))
    assert torch.equal(one, two)
    assert other.param_groups[0]["first_lr"] == 0.5


def test_missed_steps_in_checkpoints():
    """They are beside the states, where torch's class keeps them; without them the count is that of the states."""
    params = [ones(3), ones(3)]
    optimizer = schuss.torch.Adam(params, lr=0.1)
    alternate(optimizer, 10)
    saved = copy.deepcopy(optimizer.state_dict())
    theirs = torch.optim.Adam(params, lr=0.1)
    theirs.load_state_dict(copy.deepcopy(saved))  # it keeps the very step counts
    alternate(theirs, 2)
    again = schuss.torch.Adam(params, lr=0.1)
    again.load_state_dict(theirs.state_dict())
    assert again.step_count == 11  # torch has counted one more for each parameter
    assert saved["param_groups"][0].pop("missed_steps") == 5
    again.load_state_dict(saved)
    assert again.step_count == 5
    for param in params:
        param.grad = torch.ones(3)
    again.step()
    assert again.step_count == 6 and "missed_steps" not in again.state_dict()["param_groups"][0]
    saved["param_groups"][0]["missed_steps"] = -1
    with pytest.raises(ValueError, match=r"^param_groups\[0\]\['missed_steps'\] must be a whole number >= 0"):
        again.load_state_dict(saved)
    assert again.step_count == 6


def test_the_count_without_the_parameter_that_took_every_step():
    a, b = ones(3), ones(3)
    optimizer = schuss.torch.Adam([a, b], lr=0.1)
    for t in range(6):
        a.grad, b.grad = torch.ones(3), torch.ones(3) if t % 2 else None
        optimizer.step()
    del optimizer.param_groups[0]["params"][0]
    assert optimizer.step_count == 6
    optimizer.state.clear()  # begins anew
    assert optimizer.step_count == 0


def saved_and_read(optimizer):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def on_plateau():
    rate, w = schedules.reduce_on_plateau(0.1, patience=0), ones(1)
    w.grad = torch.ones(1)
    return rate, schuss.torch.SGD([w], lr=rate)


def test_a_schedule_with_state_stays_in_use():
    rate, optimizer = on_plateau()
    for loss in (1.0, 2.0):
        rate.update(loss)
        optimizer.step()
    assert optimizer.lr == pytest.approx(0.01)
    saved = saved_and_read(optimizer)
    rate, optimizer = on_plateau()
    seen = []
    optimizer.register_load_state_dict_post_hook(lambda own: seen.append(own.param_groups[0]["lr"]))
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] is rate is seen[0] and optimizer.lr == rate(0) == pytest.approx(0.01)
    for loss in (3.0, 4.0, 5.0):
        rate.update(loss)
        optimizer.step()
    assert optimizer.lr == rate(0) == pytest.approx(1e-5)
    # The checkpoint's own has not changed.
    assert saved["param_groups"][0]["lr"](0) == pytest.approx(0.01)


class Other:
    """A schedule of a user's, with another state."""

    def __call__(self, step):
        return 0.5

    def state_dict(self):
        return {"best": "x"}

    def load_state_dict(self, state):
        raise AssertionError


def test_a_load_that_fails_leaves_the_schedule_alone():
    rate, optimizer = on_plateau()
    rate.update(1.0)
    optimizer.step()
    saved = saved_and_read(optimizer)
    rate.update(2.0)
    optimizer.step()
    saved["state"][0]["step"] = -1
    with pytest.raises(ValueError, match=r"^'step' of param_groups"):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] is rate and optimizer.lr == pytest.approx(0.01)
    saved["state"][0]["step"] = 1
    saved["param_groups"][0]["lr"] = Other()
    with pytest.raises(ValueError, match=r"^param_groups\[0\]\['lr'\] does not fit"):
        optimizer.load_state_dict(saved)
    assert optimizer.lr == pytest.approx(0.01)


def test_schedules_and_numbers():
    """What has a schedule keeps it; a number becomes what the checkpoint has. So in every group and hyperparameter."""
    cosine, linear = schedules.cosine(0.5, 0.0, 10), schedules.linear(0.1, 0.0, 5)

    def made(**options):
        params = [ones(1), ones(1)]
        optimizer = schuss.torch.AdamW([{"params": [params[0]]}, {"params": [params[1]], **options}], lr=0.25)
        for param in params:
            param.grad = torch.ones(1)
        optimizer.step()
        return optimizer

    numbers = made()
    planned = made(lr=cosine, weight_decay=linear)
    planned.load_state_dict(saved_and_read(numbers))
    groups = planned.param_groups
    assert groups[0]["lr"] == 0.25 and groups[1]["lr"] is cosine and groups[1]["weight_decay"] is linear
    planned.step()
    assert planned.step_count == 2
    numbers.load_state_dict(saved_and_read(planned))
    assert numbers.param_groups[1]["lr"](3) == cosine(3) and numbers.param_groups[0]["lr"] == 0.25
    numbers.step()


def test_parameters_that_are_replaced_with_their_states_count_once():
    """As in models that grow: a new parameter in the place of the old one, with the old one's state."""
    param = ones(3)
    optimizer = schuss.torch.Adam([param], lr=schedules.linear(1.0, 0.0, 100))
    for t in range(1, 41):
        param.grad = torch.ones_like(param)
        optimizer.step()
        assert optimizer.step_count == t
        if t % 10 == 0:
            state = optimizer.state.pop(param)
            param = torch.nn.Parameter(torch.cat([param.detach(), torch.ones(1)]))
            longer = {name: torch.cat([state[name], torch.zeros(1)]) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.param_groups[0]["params"] = [param]
            optimizer.state[param] = {**state, **longer}
            assert "missed_steps" not in optimizer.state_dict()["param_groups"][0]


def test_groups_have_the_count_after_each_step():
    """ZeroRedundancyOptimizer saves the groups as they are."""
    optimizer = schuss.torch.Adam([ones(3), ones(3)], lr=0.1)
    alternate(optimizer, 10)
    assert optimizer.param_groups[0]["missed_steps"] == 5
    optimizer.param_groups[0]["missed_steps"] = torch.tensor(5.0)  # as it broadcasts them
    again = schuss.torch.Adam([ones(3), ones(3)], lr=0.1)
    again.load_state_dict(optimizer.state_dict())
    assert again.step_count == 10


@pytest.mark.parametrize("kind", [schuss.torch.Adam, schuss.torch.Muon])
def test_pickles_of_earlier_versions(kind):
    """They have neither the defaults that schedulers do not see, nor turns."""
    optimizer = kind([ones(3, 3)], lr=0.1)
    optimizer.param_groups[0]["params"][0].grad = torch.eye(3)
    optimizer.step()
    state = optimizer.__getstate__()
    state["defaults"] = {**state["defaults"], **state.pop("_beside")}
    older = kind.__new__(kind)
    older.__setstate__(copy.deepcopy(state))
    assert older.step_count == 1 and ("betas" in older.defaults) == ("betas" in optimizer.defaults)
    assert older.param_groups[0]["betas"] == optimizer.param_groups[0]["betas"]


class WithAll(AdamW):
    def __getstate__(self):
        return self.__dict__


def test_copies_of_a_class_that_saves_all_it_has():
    optimizer = WithAll([ones(3)], lr=0.1)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.step()
    other = copy.deepcopy(optimizer)
    assert other.step_count == 1 and other._lock is not optimizer._lock


def test_a_hook_that_adds_the_groups_of_a_checkpoint():
    one, two = ones(3), ones(2)
    saved = schuss.torch.Adam([{"params": [one]}, {"params": [two]}], lr=0.5).state_dict()
    optimizer = schuss.torch.Adam([one], lr=0.1)
    optimizer.register_load_state_dict_pre_hook(lambda own, _: own.add_param_group({"params": [two]}))
    optimizer.load_state_dict(saved)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_a_group_that_is_no_dict():
    with pytest.raises(TypeError, match="param_group must be a dict"):
        schuss.torch.Muon([ones(3, 3)], lr=0.1).add_param_group([ones(3, 3)])
