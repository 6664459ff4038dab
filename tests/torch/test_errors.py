"""What the classes of schuss.torch refuse, and what they say then."""

import copy
import re

import pytest
import torch
from torch_helpers import NAMES, ones

import schuss
import schuss.torch
from schuss._backends import cuda_gradients, cuda_interop


def with_gradient():
    param = ones(3)
    param.grad = torch.ones(3)
    return param


MEMORY = torch.ones(6)
SGD = (
    "lr, momentum, dampening, weight_decay, nesterov, momentum_form, debias, maximize, max_grad_norm, track_grad_norm, "
    "nonfinite, state_dtype, state_rounding, state_seed, master_weights"
)
WRONG = {
    "device": (
        lambda: schuss.torch.SGD([ones(3, device="meta")]),
        "param_groups[0]['params'][0] is on meta, where tensors have no numbers: give the model memory and its first "
        'values before the optimizer is made, as with model.to_empty(device="cpu")',
    ),
    "negated": (
        lambda: schuss.torch.SGD([torch._neg_view(torch.ones(3)).requires_grad_()]),
        "param_groups[0]['params'][0] is a view of negated numbers; use its .resolve_neg() in the model too",
    ),
    "complex": (
        lambda: schuss.torch.SGD([("w", ones(3, dtype=torch.complex64))]),
        "parameter 'w' has dtype torch.complex64; it must be float32, float64, float16 or bfloat16; hold a real "
        "parameter and use torch.view_as_complex in forward",
    ),
    "gaps": (
        lambda: schuss.torch.SGD([torch.nn.Parameter(torch.ones(4, 6)[:, :3])]),
        "param_groups[0]['params'][0] has gaps in memory (shape (4, 3), strides (6, 1)); make it dense once with "
        ".contiguous(), and use that tensor in the model too",
    ),
    "rate": (lambda: schuss.torch.SGD([ones(3)], lr=-1), "lr must be a number >= 0, got -1"),
    "master copy": (
        lambda: schuss.torch.SGD([ones(3), ones(2)], master_weights=True),
        "master_weights=True is for float16 and bfloat16, which no parameter has (param_groups[0]['params'][0] is "
        "float32); leave it out",
    ),
    "option": (
        lambda: schuss.torch.SGD([ones(3)], max_grad_norm=-1),
        "max_grad_norm must be a number > 0, got -1",
    ),
    "state": (
        lambda: schuss.torch.Adagrad([ones(3)], state_dtype="int8"),
        'Adagrad has no state_dtype="int8"; use "bfloat16"',
    ),
    "clipping": (
        lambda: schuss.torch.LBFGS([ones(3)], max_grad_norm=1.0),
        "LBFGS has no max_grad_norm; return clipped gradients from the closure",
    ),
    "groups": (
        lambda: schuss.torch.LBFGS([{"params": [ones(3)]}, {"params": [ones(2)]}]),
        "LBFGS takes one structure of arrays, no groups: all parameters are one vector",
    ),
    "memory order": (
        lambda: schuss.torch.SM3([("conv", torch.ones(4, 3, 5, 5).contiguous(memory_format=torch.channels_last))]),
        "parameter 'conv' has its axes in another order in memory, as in channels-last, but SM3 works on matrices; "
        "make it contiguous",
    ),
    "overlap": (
        lambda: schuss.torch.SGD([("a", MEMORY[1:4]), ("b", MEMORY[3:])]),
        "parameter 'b' overlaps the memory of parameter 'a'; pass arrays that share no memory",
    ),
    "overlap of groups": (
        lambda: schuss.torch.SGD([MEMORY[1:4]]).add_param_group({"params": [MEMORY[3:]]}),
        "param_groups[1]['params'][0] overlaps the memory of param_groups[0]['params'][0]; pass arrays that share no "
        "memory",
    ),
    "alignment": (
        lambda: schuss.torch.SGD([("a", torch.frombuffer(bytearray(401), dtype=torch.float32, count=2, offset=1))]),
        "parameter 'a' is not aligned to its 4-byte elements; copy it once and use that array in the model too",
    ),
    "rate of a group": (
        lambda: schuss.torch.SGD([{"params": [ones(3)]}, {"params": [ones(3)], "lr": -1}]),
        "param_groups[1]: lr must be a number >= 0, got -1",
    ),
    "unknown option": (
        lambda: schuss.torch.SGD([ones(3)], momentun=0.9),
        f"SGD has no option 'momentun': use momentum; it takes {SGD}",
    ),
    "option of others": (
        lambda: schuss.torch.SGD([ones(3)], learning_rate=0.9),
        f"SGD has no option 'learning_rate': use lr; it takes {SGD}",
    ),
    "Hessian": (
        lambda: schuss.torch.Newton([with_gradient()]).step(),
        "Newton needs the Hessian: step(..., hessian=...)",
    ),
    "wrapped": (
        lambda: schuss.EMA(schuss.torch.SGD([ones(3)])),
        "EMA wraps an optimizer, got SGD of schuss.torch, not of schuss itself; save it with "
        "torch.save(optimizer.state_dict(), path), and average with schuss.torch.swa_utils",
    ),
    "saved": (
        lambda: schuss.save("state", torch.optim.SGD([ones(3)])),
        "the optimizer must be one of schuss, got SGD of torch; save it with torch.save(optimizer.state_dict(), path)",
    ),
    "wrapper": (
        lambda: schuss.torch.EMA,
        "module 'schuss.torch' has no EMA: schuss.EMA wraps optimizers over arrays only",
    ),
    "missing option": (lambda: schuss.torch.LARS([ones(3)]), "LARS: missing a required argument: 'lr'"),
    "scale": (
        lambda: schuss.torch.SGD([ones(3)]).stepping(grad_scale=torch.ones(2)),
        "grad_scale is a tensor of shape (2,); it must have one element",
    ),
    "differentiable": (
        lambda: schuss.torch.SGD([ones(3)], differentiable=True),
        "differentiable=True: a step of schuss.torch cannot be differentiated; use torch.optim",
    ),
    "no closure": (
        lambda: schuss.torch.NAG([ones(3)]).step(),
        "NAG needs a closure that computes the gradients: optimizer.step(closure)",
    ),
    "name": (
        lambda: schuss.torch.Adan2,
        f"module 'schuss.torch' has no optimizer 'Adan2'; did you mean Adan? It has {', '.join(NAMES)}",
    ),
    "base class": (
        lambda: schuss.torch.Optimizer([ones(3)]),
        "Optimizer is what all classes of schuss.torch have in common; make one of those",
    ),
}


FROZEN = {
    "quantized": torch.zeros(3, dtype=torch.int8),
    "expanded": torch.ones(1, 3).expand(4, 3),
    "meta": torch.ones(3, device="meta"),
    "sparse": torch.eye(3).to_sparse(),
}


@pytest.mark.parametrize("what", FROZEN)
def test_frozen_parameters_are_to_be_left_out(what):
    param = torch.nn.Parameter(FROZEN[what], requires_grad=False)
    advice = (
        "; it requires no gradient: if it is frozen, pass [p for p in model.parameters() if p.requires_grad] instead"
    )
    with pytest.raises((TypeError, ValueError), match=r"^parameter 'w' .*" + re.escape(advice) + "$"):
        schuss.torch.AdamW([("bias", ones(3)), ("w", param)])
    schuss.torch.AdamW([("bias", ones(3)), ("w", torch.ones(3))])  # a usable one may have no gradient


@pytest.mark.parametrize("what", WRONG)
def test_wrong_calls(what):
    call, message = WRONG[what]
    with pytest.raises((TypeError, ValueError, AttributeError)) as raised:
        call()
    assert str(raised.value) == message


def test_a_group_that_does_not_fit_the_others_is_not_added():
    first = torch.nn.Parameter(torch.ones(3))
    optimizer = schuss.torch.LBFGS([first])
    with pytest.raises(TypeError, match="LBFGS takes one structure of arrays, no groups"):
        copy.deepcopy(optimizer).add_param_group({"params": [ones(2)]})
    with pytest.raises(TypeError, match="LBFGS takes one structure of arrays, no groups"):
        optimizer.add_param_group({"params": [ones(2)]})
    assert len(optimizer.param_groups) == 1
    optimizer.step(lambda: (first**2).sum())  # the group is gone


def test_a_parameter_with_other_memory_after_the_constructor_is_named():
    a, b = ones(3), ones(3)
    optimizer = schuss.torch.SGD([("a", a), ("b", b)], lr=0.1)
    b.data = a.data
    with pytest.raises(ValueError, match=r"^parameter 'b' is the same memory as parameter 'a'; list a shared"):
        optimizer.step()


def test_only_public_names_are_shown():
    assert dir(schuss.torch) == sorted([*NAMES, "Optimizer", "lr_scheduler", "swa_utils"])


def test_the_constructor_keeps_no_states():
    optimizer = schuss.torch.AdamW([ones(3)])
    assert optimizer._plan is None and not optimizer.state


def test_sparse_gradients_are_refused():
    table = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = schuss.torch.SGD(table.parameters(), lr=0.1)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=r"the gradient of param_groups.* is sparse; make it dense: sparse=False"):
        optimizer.step()


def test_names_in_errors_of_a_step():
    a, b = ones(3), ones(2)
    groups = [{"params": [("body.weight", a)]}, {"params": [("head.bias", b)]}]
    optimizer = schuss.torch.SGD(groups, lr=0.1, nonfinite="error")
    a.grad, b.grad = torch.ones(3), torch.full((2,), float("nan"))
    with pytest.raises(FloatingPointError, match=r"^the gradient of parameter 'head\.bias' has a NaN or infinity"):
        optimizer.step()


def test_a_sparse_gradient_on_a_gpu_is_refused_with_a_message():
    """It has no pointer by which a step could know it again; `describe` sees it before anything about a GPU."""
    sparse = torch.eye(2).to_sparse()
    assert cuda_gradients._key(sparse) is None and cuda_gradients._key(torch.eye(2)) is not None
    with pytest.raises(TypeError, match=r"^grads is a sparse tensor; pass a dense one"):
        cuda_interop.describe("grads", sparse)
