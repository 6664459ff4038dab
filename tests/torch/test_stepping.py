"""Steps within the backward pass: the bits of a step after it, and what is refused."""

import warnings

import pytest
import torch
from cases import MOVING
from reference import JOINT

import schuss
import schuss.torch

NAMES = [
    name
    for name, kind in schuss.OPTIMIZERS.items()
    if name not in JOINT | {"NAG", "Newton", "Ranger", "Muon", "SOAP", "Shampoo"}
]


class Model(torch.nn.Module):
    """With a weight that is used twice, one that is frozen, and one that no output depends on."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(4, 4)
        self.frozen = torch.nn.Linear(4, 4).requires_grad_(False)
        self.unused = torch.nn.Linear(2, 2)
        self.last = torch.nn.Linear(4, 1)
        self.to(dtype)

    def forward(self, x):
        return self.last(torch.tanh(self.first(self.frozen(torch.tanh(self.first(x))))))


def trained(name, dtype, within):
    model = Model(dtype)
    given = dict(lr=0.1) | MOVING.get(name, {}) | (dict(max_grad_norm=None) if name == "LAMB" else {})
    optimizer = getattr(schuss.torch, name)(model.parameters(), **given)
    for t in range(3):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(t), dtype=torch.float64).to(dtype)
        loss = model(x).square().mean()
        if within:
            with optimizer.stepping(grad_scale=2.0):
                loss.backward()
            assert all(param.grad is None for param in model.parameters())
        else:
            loss.backward()
            optimizer.step(grad_scale=2.0)
            optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_bits_are_those_of_a_step_after_it(name, dtype):
    (one, plain), (two, within) = (trained(name, dtype, way) for way in (False, True))
    for (where, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b), where
    a, b = plain.state_dict()["state"], within.state_dict()["state"]
    assert list(a) == list(b)
    for i in a:
        for key in a[i]:
            assert torch.equal(a[i][key], b[i][key]), (i, key)


def test_a_scheduler_of_torch_does_not_warn():
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = schuss.torch.SGD([w], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(2):
        with optimizer.stepping():
            w.sum().backward()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scheduler.step()
    assert w.tolist() == [-0.5, -0.5]


def test_a_second_backward_pass_is_refused_and_hooks_do_not_stay():
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = schuss.torch.SGD([w], lr=1.0)
    with pytest.raises(ValueError, match=r"^params\[0\] was updated in this step already"), optimizer.stepping():
        w.sum().backward()
        w.sum().backward()
    w.grad = None
    w.sum().backward()
    assert w.grad.tolist() == [1.0, 1.0] and w.tolist() == [0.0, 0.0]
    optimizer.step()
    assert w.tolist() == [-1.0, -1.0] and optimizer.state_dict()["state"][0]["step"] == 2


def test_values_that_a_later_part_needs_are_not_overwritten_unnoticed():
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = schuss.torch.SGD([w], lr=1.0)
    square = w * w
    with optimizer.stepping():
        w.sum().backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.sum().backward()


def test_wrong_calls():
    w = torch.nn.Parameter(torch.ones(2))
    clipped = schuss.torch.SGD([w], lr=1.0, max_grad_norm=1.0)
    with pytest.raises(ValueError, match=r"^max_grad_norm needs the norm of all gradients"), clipped.stepping():
        pass
    joint = schuss.torch.Prodigy([w])
    with pytest.raises(TypeError, match=r"^Prodigy cannot step array by array: each array's"), joint.stepping():
        pass


def test_other_uses_within_the_block_are_refused():
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = schuss.torch.AdamW([w], lr=1.0)
    state = optimizer.state_dict()
    with optimizer.stepping():
        for call in [
            optimizer.step,
            optimizer.state_dict,
            lambda: optimizer.load_state_dict(state),
            lambda: optimizer.add_param_group({"params": [torch.ones(1)]}),
            lambda: optimizer.stepping().__enter__(),
        ]:
            with pytest.raises(
                RuntimeError, match=r"^within stepping\(\) only backward passes may use this optimizer$"
            ):
                call()
        w.sum().backward()
    assert optimizer.state_dict()["state"][0]["step"] == 1


def test_memory_and_gradients_that_others_take_within_the_block():
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = schuss.torch.SGD([w], lr=1.0)
    with pytest.raises(RuntimeError, match=r"'\]\[0\] was given other memory within stepping"), optimizer.stepping():
        w.data = torch.zeros(2)
        w.sum().backward()
    assert w.grad.tolist() == [1.0, 1.0]
    w.grad = None
    other = schuss.torch.SGD([w], lr=1.0)
    with (
        pytest.raises(RuntimeError, match="is gone: another hook or optimizer has taken it"),
        optimizer.stepping(),
        other.stepping(),
    ):
        w.sum().backward()


def test_the_rate_is_that_at_the_beginning_of_the_block():
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = schuss.torch.SGD([w], lr=1.0)
    stepping = optimizer.stepping()
    optimizer.param_groups[0]["lr"] = 0.25
    with stepping:
        w.sum().backward()
    assert w.tolist() == [0.75, 0.75]


def test_gradients_from_before_the_block_count():
    """They are added to, and a parameter that the backward pass does not reach is updated with what it has."""
    results = []
    for within in (False, True):
        a, b, frozen = (torch.nn.Parameter(torch.full((2,), i)) for i in (1.0, 2.0, 3.0))
        optimizer = schuss.torch.Adam([a, b, frozen], lr=0.1)
        (a * b * frozen).sum().backward()
        frozen.requires_grad_(False)
        if within:
            with optimizer.stepping(grad_scale=4.0):
                a.sum().backward()
            assert a.grad is b.grad is frozen.grad is None
        else:
            a.sum().backward()
            optimizer.step(grad_scale=4.0)
        results.append([*(p.detach() for p in (a, b, frozen)), optimizer.state_dict()["state"][1]["exp_avg"]])
    assert all(map(torch.equal, *results))


def test_a_block_that_updates_nothing_is_an_error():
    w, other = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = schuss.torch.SGD([w], lr=1.0)
    with pytest.raises(RuntimeError, match=r"^stepping\(\) has updated no parameter: no ba"), optimizer.stepping():
        other.sum().backward()
    with pytest.raises(ZeroDivisionError), optimizer.stepping():
        raise ZeroDivisionError
    with optimizer.stepping():
        w.sum().backward()
    assert w.tolist() == [0.0, 0.0]
    w.requires_grad_(False)
    with optimizer.stepping():  # all are frozen, as in a stage of fine-tuning
        pass


def test_other_axes_within_the_block():
    w = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = schuss.torch.SGD([w], lr=1.0)
    with pytest.raises(RuntimeError, match=r"'\]\[0\] was given other memory within stepping"), optimizer.stepping():
        w.data = w.data.t()
        w.sum().backward()
