"""Options of the optimizer as a whole: given to the constructor, set later, copied, refused in groups."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch_helpers import arrays, ones, step, take, tensors

import schuss
import schuss.torch


@pytest.mark.parametrize("options", [dict(state_dtype="int8"), dict(master_weights=True), dict(max_grad_norm=0.1)])
def test_options_of_the_whole_optimizer(options):
    dtype = torch.bfloat16
    params, copies = [torch.nn.Parameter(t) for t in tensors(dtype)], arrays(tensors(dtype))
    optimizer, plain = schuss.torch.AdamW(params, lr=0.1, **options), schuss.AdamW(copies, lr=0.1, **options)
    for seed in (1, 2):
        take(optimizer, params, seed)
        plain.step(arrays(tensors(dtype, seed)))
    other = pickle.loads(pickle.dumps(optimizer))
    twins = other.param_groups[0]["params"]
    take(other, twins, 3)
    take(optimizer, params, 3)
    plain.step(arrays(tensors(dtype, 3)))
    for param, twin, expected in zip(arrays(params), arrays(twins), copies, strict=True):
        assert param.tobytes() == twin.tobytes() == expected.tobytes()
    assert optimizer.grad_norm == plain.grad_norm


def test_master_weights_of_a_mixed_model():
    """Only parameters of 16 bits have copies, in any group."""
    norm, weight, twins = ones(5), ones(7, dtype=torch.bfloat16), [ones(5), ones(7)]
    optimizer = schuss.torch.AdamW([{"params": [norm]}, {"params": [weight]}], lr=0.01, master_weights=True)
    other = schuss.torch.AdamW(twins, lr=0.01)
    for seed in range(3):
        for param, twin in zip((norm, weight), twins, strict=True):
            param.grad = torch.full_like(param, 1.0 + seed)
            twin.grad = param.grad.float()
        optimizer.step()
        other.step()
    assert torch.equal(norm, twins[0]) and torch.equal(weight, twins[1].bfloat16())
    assert ["master" in optimizer.state[param] for param in (norm, weight)] == [False, True]
    again = schuss.torch.AdamW([{"params": [norm]}, {"params": [weight]}], master_weights=True)
    again.load_state_dict(optimizer.state_dict())
    assert torch.equal(again.state[weight]["master"], twins[1])


def test_options_set_later():
    """They count from the next step on, as in the package, and a copy and a new plan have them too."""
    params, copies = [torch.nn.Parameter(t) for t in tensors(torch.float64)], arrays(tensors(torch.float64))
    optimizer, plain = schuss.torch.Adam(params, lr=0.1), schuss.Adam(copies, lr=0.1)
    for seed, (name, value) in enumerate(
        [("max_grad_norm", 1e-3), ("track_grad_norm", True), ("nonfinite", "skip"), ("step_count", 7)]
    ):
        setattr(optimizer, name, value)
        setattr(plain, name, value)
        take(optimizer, params, seed)
        plain.step(arrays(tensors(torch.float64, seed)))
        assert getattr(optimizer, name) == getattr(plain, name)
    assert all(np.array_equal(p, q) for p, q in zip(arrays(params), copies, strict=True))
    assert optimizer.grad_norm == plain.grad_norm
    assert float(optimizer.state[params[0]]["step"]) == 8
    optimizer.step_count = 0
    assert optimizer.state_dict()["state"][0]["step"] == 0
    with pytest.raises(ValueError, match="nonfinite must be"):
        optimizer.nonfinite = "ignore"
    optimizer.add_param_group({"params": [ones(2)]})  # the next step makes a new plan
    for made in (optimizer, copy.deepcopy(optimizer)):
        assert (made.max_grad_norm, made.track_grad_norm, made.nonfinite) == (1e-3, True, "skip")
    none = schuss.torch.Adam([{"params": []}])  # as in a process that has no part of the parameters
    none.nonfinite = "error"
    assert none._options["nonfinite"] == "error"


def test_settings_set_later_are_kept():
    optimizer = schuss.torch.Ranger([ones(2)])
    optimizer.pullback = "reset"
    assert copy.deepcopy(optimizer).pullback == "reset"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("lr", "lr is a hyperparameter; set it in optimizer.param_groups[i]['lr']"),
        ("momentum", "momentum is a hyperparameter; set it in optimizer.param_groups[i]['momentum']"),
        ("state_dtype", "state_dtype of SGD cannot be set; give it to the constructor"),
        ("skipped_steps", "skipped_steps of SGD cannot be set; give your own attribute another name"),
        ("metrics", "metrics of SGD cannot be set; give your own attribute another name"),
    ],
)
def test_attributes_that_cannot_be_set(name, advice):
    """Nothing that is read from the package's optimizer is hidden by an attribute that no step looks at."""
    optimizer = schuss.torch.SGD([ones(2)], lr=0.1)
    with pytest.raises(AttributeError) as raised:
        setattr(optimizer, name, 0.5)
    assert str(raised.value) == advice
    assert optimizer.lr == 0.1


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
