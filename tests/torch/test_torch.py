"""What holds for every class of schuss.torch, whether torch has one of that name or not."""

import copy
import inspect
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from cases import STATEFUL
from families.newton import hessian
from reference import defaults_of
from torch_helpers import KINDS, NAMES, arrays, made, ones, options_of, take, tensors

import schuss
import schuss.torch

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_as_the_class_over_arrays(name, dtype):
    params = [torch.nn.Parameter(tensor) for tensor in tensors(dtype)]
    copies = arrays([tensor.clone() for tensor in tensors(dtype)])
    ours = made(name, params)
    plain = KINDS[name](copies, **options_of(name))
    for seed in range(1, 4):
        take(ours, params, seed)
        grads = arrays(tensors(dtype, seed))
        if type(ours)._takes_closure:
            plain.step(lambda grads=grads: (0.5, grads) if type(ours)._takes_loss else grads)
        elif name == "Newton":
            plain.step(grads, hessian(sum(p.size for p in copies)))
        else:
            plain.step(grads)
    for param, expected in zip(arrays(params), copies, strict=True):
        assert param.tobytes() == expected.tobytes()
    assert dtype != torch.float64 or not np.array_equal(copies[0], arrays(tensors(dtype))[0])


@pytest.mark.parametrize("way", ["load_state_dict", "deepcopy", "pickle"])
@pytest.mark.parametrize("name", NAMES)
def test_resuming_has_the_same_bits(name, way):
    options = STATEFUL.get(name, {})
    params = [torch.nn.Parameter(tensor) for tensor in tensors(torch.float32)]
    optimizer = made(name, params, **options)
    for seed in (1, 2):
        take(optimizer, params, seed)
    if way == "load_state_dict":
        twins = [torch.nn.Parameter(param.detach().clone()) for param in params]
        other = made(name, twins, **options)
        other.load_state_dict(optimizer.state_dict())  # its tensors are the live ones: they must be copied
    else:
        other = copy.deepcopy(optimizer) if way == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
        twins = other.param_groups[0]["params"]
    for seed in (3, 4):
        take(optimizer, params, seed)
        take(other, twins, seed)
    for one, two in zip(params, twins, strict=True):
        assert torch.equal(one, two)


def test_a_process_without_parameters():
    assert schuss.torch.AdamW([{"params": []}], master_weights=True).step() is None


def test_a_stale_backward_pass_is_refused():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = schuss.torch.SGD([param], lr=0.1)
    loss = (param**3).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_failed_step_changes_nothing():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = schuss.torch.Adam([param], lr=0.1, nonfinite="error")
    param.grad = torch.tensor([1.0, float("nan"), 1.0])
    with pytest.raises(FloatingPointError, match=r"grads\[0\] has a NaN or infinity, first at \(1,\)"):
        optimizer.step()
    assert torch.equal(param.detach(), torch.ones(3)) and not optimizer.state
    skips = schuss.torch.Adam([param], lr=0.1, nonfinite="skip")
    skips.step()
    assert torch.equal(param.detach(), torch.ones(3)) and not skips.state and skips.skipped_steps == 1


def test_an_interrupt_after_the_step(monkeypatch):
    """The step itself is one native call; what torch is told after it is made up for later."""
    params = [torch.nn.Parameter(tensor) for tensor in tensors(torch.float32)]
    optimizer, plan = schuss.torch.Adam(params), schuss.torch._optimizer.Plan
    take(optimizer, params, 1)
    for stop in (KeyboardInterrupt, MemoryError):
        with monkeypatch.context() as patch:
            patch.setattr(plan, "follow", lambda *_, stop=stop: (_ for _ in ()).throw(stop))
            with pytest.raises(stop):
                take(optimizer, params, 2)
    # Each was stopped before its step.
    assert float(optimizer.state_dict()["state"][0]["step"]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(plan, "fits", lambda *_: patch.setattr(plan, "follow", lambda *_: 1 / 0) or True)
        with pytest.raises(ZeroDivisionError):
            take(optimizer, params, 2)
    # This one after it.
    assert float(optimizer.state_dict()["state"][0]["step"]) == 2
    take(optimizer, params, 3)
    assert float(optimizer.state[params[0]]["step"]) == 3


def test_the_signature_is_that_of_the_package():
    assert inspect.signature(schuss.torch.AdamW) == inspect.signature(schuss.AdamW)
    assert schuss.torch.AdamW([ones(3)], 0.5).defaults["lr"] == 0.5
    assert set(schuss.torch.Adam([ones(3)]).defaults) == set(defaults_of("Adam")) - {
        "max_grad_norm", "nonfinite", "state_dtype", "state_rounding", "state_seed", "master_weights"
    }  # fmt: skip


def test_importing_the_package_does_not_import_torch():
    code = (
        "import schuss, sys; print('torch' in sys.modules); import schuss.torch; print('torch._dynamo' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["False", "False"]


def test_what_is_beside_the_optimizers():
    assert schuss.torch.lr_scheduler is torch.optim.lr_scheduler
    assert schuss.torch.swa_utils is torch.optim.swa_utils
