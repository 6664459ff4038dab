"""Shared by tests of schuss.torch: parameters, optimizers of every class, and their steps."""

import torch
from cases import MOVING
from families.newton import hessian

import schuss
import schuss.torch
from schuss._core.declaration import REQUIRED

# The package imports LBFGS on first use, so it is not in the registry.
KINDS = {**schuss.OPTIMIZERS, "LBFGS": schuss.LBFGS}
NAMES = list(KINDS)
SHAPES = [(3, 5), (5,), (), (2, 3, 4), (0,)]


def ones(*shape, **options):
    return torch.nn.Parameter(torch.ones(*shape, **options))


def step(optimizer, gradient=1.0):
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.full_like(param, gradient)
    optimizer.step()


def tensors(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES]


def arrays(own):
    return [schuss.torch._optimizer._tensors.array(tensor) for tensor in own]


def options_of(name):
    """Options with which the optimizer can be made, and moves."""
    return {
        **(dict(lr=0.1) if KINDS[name]._parameters["lr"].default is REQUIRED else {}),
        **MOVING.get(name, {}),
    }


def made(name, params, **options):
    return getattr(schuss.torch, name)(params, **{**options_of(name), **options})


def take(optimizer, params, seed):
    """A step with seeded gradients, by a closure, which every optimizer takes."""

    def closure():
        for param, gradient in zip(params, tensors(params[0].dtype, seed), strict=True):
            param.grad = gradient
        return 0.5

    more = {"hessian": hessian(sum(p.numel() for p in params))} if isinstance(optimizer, schuss.torch.Newton) else {}
    assert optimizer.step(closure, **more) == 0.5
