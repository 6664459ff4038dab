"""States that a user or a checkpoint has set: what they must be, and what is refused by name."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch_helpers import ones

import schuss.torch


def step(optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.randn(param.shape, generator=generator) + 1.0
    optimizer.step()


def channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


def transposed(tensor):
    return tensor.transpose(0, 1).contiguous().transpose(0, 1)


#: A shape, two memory orders, and what messages call these.
ORDERS = [
    ((16, 8, 3, 3), torch.Tensor.contiguous, channels_last, "[0, 1, 2, 3]", "[0, 2, 3, 1]"),
    ((16, 8, 3, 3), channels_last, torch.Tensor.contiguous, "[0, 2, 3, 1]", "[0, 1, 2, 3]"),
    ((40, 30), torch.Tensor.contiguous, transposed, "[0, 1]", "[1, 0]"),
]


@pytest.mark.parametrize(("shape", "one", "other", "was", "now"), ORDERS)
def test_int8_states_in_another_memory_order(shape, one, other, was, now):
    """Their scales belong to elements that lie together."""
    w = torch.nn.Parameter(one(torch.randn(shape)))
    optimizer = schuss.torch.AdamW([("conv.weight", w)], lr=0.01, state_dtype="int8")
    step(optimizer, 1)
    message = (
        f"the state of parameter 'conv.weight' is for a parameter in another memory order (its axes are in the order "
        f"{was}, here {now}), to which its scales belong; give the parameter that order, as with "
        "memory_format=torch.channels_last, or begin without its state"
    )
    saved = copy.deepcopy(optimizer.state_dict())
    results = []
    for order in (one, other):
        twin = torch.nn.Parameter(order(w.detach().clone()))
        again = schuss.torch.AdamW([("conv.weight", twin)], lr=0.01, state_dtype="int8")
        if order is other:
            with pytest.raises(ValueError) as raised:
                again.load_state_dict(saved)
            assert str(raised.value) == message and not again.state
        else:
            again.load_state_dict(saved)
            step(again, 2)
            results.append(twin.detach())
    before = w.detach().clone()
    w.data = other(w.data)
    with pytest.raises(ValueError) as raised:
        step(optimizer, 2)
    assert str(raised.value) == message and torch.equal(w, before)
    w.data = one(w.data)
    step(optimizer, 2)
    assert torch.equal(w, results[0])


def test_axes_of_length_one_and_earlier_checkpoints():
    w = torch.nn.Parameter(torch.randn(16, 8, 1, 1))
    optimizer = schuss.torch.AdamW([w], lr=0.01, state_dtype="int8")
    step(optimizer, 1)
    w.data = channels_last(w.data.clone())
    step(optimizer, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    del saved["state"][0]["memory_order"]
    again = schuss.torch.AdamW([torch.nn.Parameter(w.detach().clone())], lr=0.01, state_dtype="int8")
    again.load_state_dict(saved)
    assert torch.equal(again.state_dict()["state"][0]["exp_avg"], saved["state"][0]["exp_avg"])
    assert again.state_dict()["state"][0]["memory_order"].tolist() == [0, 1]


PLACE = "param_groups[0]['params'][1]"
COUNT = f"'step' of {PLACE} must be a whole number >= 0 and < 2**63, got "
DAMAGED = [
    ("step", float("nan"), COUNT + "nan"),
    ("step", torch.tensor(float("nan")), COUNT + "nan"),
    ("step", torch.tensor(float("inf")), COUNT + "inf"),
    ("step", -1, COUNT + "-1"),
    ("step", torch.tensor(-1.0), COUNT + "-1"),
    ("step", 2.5, COUNT + "2.5"),
    ("step", "x", COUNT + "'x'"),
    ("step", 1e30, COUNT + str(int(1e30))),
    ("step", torch.ones(2), f"'step' of {PLACE} is a tensor of shape (2,); it must have one element"),
    ("exp_avg", "x", f"'exp_avg' of {PLACE} must be a tensor, got str"),
    (
        "exp_avg",
        torch.ones(3, dtype=torch.complex64),
        f"'exp_avg' of {PLACE} must be a dense tensor of real numbers, got torch.complex64, torch.strided",
    ),
    (
        "exp_avg",
        torch.ones(3).to_sparse(),
        f"'exp_avg' of {PLACE} must be a dense tensor of real numbers, got torch.float32, torch.sparse_coo",
    ),
    (None, "x", f"the state of {PLACE} must be a dict, got str"),
    (None, torch.ones(3), f"the state of {PLACE} must be a dict, got Tensor"),
]


@pytest.mark.parametrize("way", ["load", "set"])
@pytest.mark.parametrize(("name", "value", "message"), DAMAGED)
def test_damaged_states_are_named(name, value, message, way):
    params = [ones(3), ones(3)]
    optimizer = schuss.torch.Adam(params, lr=0.1)
    step(optimizer, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    damaged = copy.deepcopy(saved)
    if name is None:
        damaged["state"][1] = value
    else:
        damaged["state"][1][name] = value
    with pytest.raises((TypeError, ValueError)) as raised, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch casts states to the dtype of their parameter
        if way == "load":
            optimizer.load_state_dict(damaged)
        else:
            optimizer.state[params[1]] = damaged["state"][1]
            step(optimizer, 2)
    assert str(raised.value) == message
    assert optimizer._plan.optimizer.step_count == 1
    optimizer.load_state_dict(saved)
    step(optimizer, 2)
    assert optimizer.state[params[1]]["step"] == 2


@pytest.mark.parametrize("value", [7, 7.0, np.float32(7), np.array(7.0), torch.tensor(7), torch.tensor([7.0])])
def test_a_step_count_may_be_any_number(value):
    w = ones(3)
    optimizer = schuss.torch.Adam([w], lr=0.1)
    step(optimizer, 1)
    optimizer.state[w]["step"] = value
    step(optimizer, 2)
    assert optimizer.step_count == optimizer.state[w]["step"] == 8


def format_of(state_dtype):
    return dict(state_dtype=state_dtype)


PLAIN, MASTER = dict(), dict(master_weights=True)
OTHER_FORMATS = [
    (torch.bfloat16, MASTER, PLAIN, "was saved with master_weights=True; make the optimizer with it to load this"),
    (torch.bfloat16, MASTER, format_of("bfloat16"), "was saved with master_weights=True; make the optimizer with it"),
    (torch.float32, format_of("bfloat16"), PLAIN, "was saved as torch.bfloat16, but here it is torch.float32; load"),
    (torch.float32, PLAIN, format_of("bfloat16"), "was saved as torch.float32, but here it is torch.bfloat16; load"),
    (torch.bfloat16, PLAIN, format_of("bfloat16"), "was saved as torch.float32, but here it is torch.bfloat16; load"),
    (torch.bfloat16, format_of("int8"), PLAIN, "was saved as torch.int8, but here it is torch.float32; load"),
    (torch.bfloat16, PLAIN, format_of("int8"), "lacks 'm_scale'"),
]


def loaded(dtype, saved, here):
    """An optimizer with the options `here`, and the state of another one with those `saved`."""
    param = ones(300, dtype=dtype)
    optimizer, other = (schuss.torch.AdamW([param], **options) for options in (saved, here))
    param.grad = torch.ones_like(param)
    optimizer.step()
    other.load_state_dict(optimizer.state_dict())
    return other.state[param]


@pytest.mark.parametrize(("dtype", "saved", "here", "message"), OTHER_FORMATS)
def test_a_state_of_another_format_is_refused(dtype, saved, here, message):
    with pytest.raises(ValueError) as raised:
        loaded(dtype, saved, here)
    assert message in str(raised.value)


def test_what_torchs_classes_save_is_of_every_plain_format():
    """States have the parameter's dtype there, and there are no master copies."""
    assert loaded(torch.bfloat16, format_of("bfloat16"), PLAIN)["exp_avg"].dtype == torch.float32
    assert torch.equal(loaded(torch.bfloat16, PLAIN, MASTER)["master"], torch.full((300,), 0.9990).bfloat16().float())


def test_a_failed_load_changes_nothing():
    param, other = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(4))
    optimizer, wider = schuss.torch.Adam([param], lr=0.1), schuss.torch.Adam([other], lr=0.2)
    for own, of in ((optimizer, param), (wider, other)):
        of.grad = torch.ones_like(of)
        own.step()
    saved = copy.deepcopy(optimizer.state_dict())
    cases = [
        (wider.state_dict(), "'exp_avg' of param_groups[0]['params'][0] has shape (4,), but here it has (3,)"),
        (
            {**saved, "state": {0: {"step": torch.tensor(1.0), "sum": torch.ones(3)}}},
            "the state of param_groups[0]['params'][0] lacks 'exp_avg': it has step, sum; it must come from the same "
            "optimizer, with the same options",
        ),
        ({**saved, "param_groups": [{**saved["param_groups"][0], "lr": -1.0}]}, "lr must be a number >= 0, got -1.0"),
    ]
    for state, message in cases:
        with pytest.raises(ValueError) as raised:
            optimizer.load_state_dict(state)
        assert str(raised.value) == message
        assert optimizer.param_groups[0]["lr"] == 0.1
        assert torch.equal(optimizer.state[param]["exp_avg"], saved["state"][0]["exp_avg"])
