"""Parameters whose axes lie in memory in another order than their own: results are the same, or refused."""

import numpy as np
import pytest
import torch
from families.newton import hessian
from torch_helpers import KINDS, made

import schuss
import schuss.torch

ORDERS = {"channels-last": (0, 3, 1, 2), "inputs first": (3, 2, 0, 1), "reversed in part": (0, 2, 1, 3)}
#: Those that work on matrices; Muon only where another axis than that of outputs would be the first.
REFUSE_ORDERS = {"Adafactor", "AdafactorHF", "AdamMini", "AdamP", "CAME", "Muon", "Newton", "Ranger", "SGDP", "SM3"}
REFUSE_ORDERS |= {"SOAP", "Shampoo"}


def trained_in_order(name, order, **options):
    """A parameter after three steps, whose axes lie in memory in another order, or in their own for None."""
    torch.manual_seed(0)
    shape, own = (6, 4, 3, 3), tuple(range(4)) if order is None else order
    values = torch.randn(shape)
    param = torch.nn.Parameter(values.clone().permute(np.argsort(own).tolist()).contiguous().permute(own))
    assert param.is_contiguous() == (order is None) and torch.equal(param, values)
    optimizer, gradient = made(name, [param], **options), torch.Generator().manual_seed(1)

    def closure():
        param.grad = torch.randn(shape, generator=gradient)
        return 0.5

    for _ in range(3):
        optimizer.step(closure, **({"hessian": hessian(param.numel())} if name == "Newton" else {}))
    assert not torch.equal(param, values)
    return param.detach().contiguous()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", KINDS)
def test_a_result_in_another_memory_order_is_the_same_or_refused(name, order):
    expected = trained_in_order(name, None)
    try:
        found = trained_in_order(name, ORDERS[order])
    except ValueError as error:
        assert name in REFUSE_ORDERS
        assert "in another order in memory, as in channels-last" in str(error)
    else:
        assert name not in REFUSE_ORDERS or name == "Muon"
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [("Adagrad", dict(row_wise=True)), ("Adam", dict(catch_up=True)), ("Muon", dict(layout="in_out"))],
)
def test_options_that_work_on_matrices_are_refused_in_another_memory_order(name, options):
    with pytest.raises(ValueError, match=f"in another order in memory, as in channels-last, but {name} works on mat"):
        trained_in_order(name, ORDERS["channels-last"], **options)


def test_methods_with_arrays_in_another_memory_order():
    param = torch.nn.Parameter(torch.randn(3, 3, 3, 3).contiguous(memory_format=torch.channels_last))
    param.grad = torch.ones_like(param)
    sophia = schuss.torch.SophiaG([("conv", param)], lr=0.1)
    with pytest.raises(ValueError, match=r"update_hessian takes arrays with the axes of the parameters, but .*'conv'"):
        sophia.update_hessian([torch.ones(3, 3, 3, 3)])
    average = schuss.torch.ASGD([param], lr=0.1, t0=100)  # so long, it is the parameter
    average.step()
    torch.testing.assert_close(average.averaged()[0], param.detach())
