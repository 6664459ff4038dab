"""The table of states in the guide, against torch's optimizers: training goes on in the package."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import schuss
from schuss.torch._names import BESIDES, NAMES

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "porting_pytorch.rst"
OPTIONS = {
    "SGD": dict(momentum=0.9),
    "RMSprop": dict(momentum=0.9, centered=True),
    "Adam": dict(amsgrad=True),
    "AdamW": dict(amsgrad=True),
    "ASGD": dict(t0=3.0),
}


def table():
    """By class: torch's name of each state, and ours with whether it is to be converted to float64."""
    found = {}
    for theirs, kinds, ours in re.findall(
        r"^   \* - (``.+) \(([\w, ]+)\)\n     - (``.+)$", PAGE.read_text(), re.MULTILINE
    ):
        named = zip(re.findall("``(.+?)``", theirs), re.findall("``(.+?)``", ours.split(";")[0]), strict=True)
        last = re.findall("``(.+?)``", theirs)[-1]
        for one, other in named:
            for kind in kinds.split(", "):
                found.setdefault(kind, {})[one] = other, one == last and "in float64" in ours
    return found


def step(optimizer, params, gradients):
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = gradient
    optimizer.step()


def test_all_are_there():
    assert set(table()) == set(NAMES) | set(BESIDES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", table())
def test_states_load_as_written(name, dtype):
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in ((4, 3), (5,))]
    theirs = getattr(torch.optim, name)(params, lr=0.05, **OPTIONS.get(name, {}))
    gradients = [[torch.randn_like(param) for param in params] for _ in range(12)]
    for own in gradients[:7]:
        step(theirs, params, own)
    arrays = [param.detach().clone().numpy() for param in params]
    ours = getattr(schuss, name)(arrays, lr=0.05, **OPTIONS.get(name, {}))
    saved = ours.state_dict()
    saved["step"] = saved["param_groups"][0]["step"] = 7
    saved["state"][0] = {}
    for one, (other, wide) in table()[name].items():
        states = [theirs.state[param].get(one) for param in params]
        saved["state"][0][other] = [
            None if state is None else state.numpy().astype(np.float64) if wide else state.numpy() for state in states
        ]
    ours.load_state_dict(saved)
    for own in gradients[7:]:
        step(theirs, params, own)
        ours.step([gradient.numpy() for gradient in own])
    tolerance = 1e-5 if dtype == torch.float32 else 1e-7 if name in ("NAdam", "ASGD") else 1e-12
    for param, array in zip(params, arrays, strict=True):
        np.testing.assert_allclose(array, param.detach().numpy(), rtol=tolerance, atol=tolerance)
