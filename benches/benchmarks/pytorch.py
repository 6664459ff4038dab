"""Steps of PyTorch models through `schuss.torch` and torch's own AdamW; nan where PyTorch is not installed."""

import importlib.util

from .jobs import THREADS
from .libraries import LR, random_arrays
from .models import TORCH_MODELS
from .timing import SUITE, measure_ratio

version = SUITE
INSTALLED = importlib.util.find_spec("torch") is not None


def optimizers():
    """AdamW in its forms: ours, and torch's fused and foreach."""
    import torch

    import schuss.torch

    torch.set_num_threads(THREADS)
    return {
        "schuss.torch": lambda params: schuss.torch.AdamW(params, lr=LR),
        "torch fused": lambda params: torch.optim.AdamW(params, lr=LR, fused=True),
        "torch foreach": lambda params: torch.optim.AdamW(params, lr=LR, foreach=True),
    }


def steps(model, dtype="float32"):
    """The step of each form over a model of its own, with gradients that stay."""
    import torch

    made, shapes = {}, TORCH_MODELS[model]
    for name, make in optimizers().items():
        params = [torch.nn.Parameter(torch.from_numpy(a).to(getattr(torch, dtype))) for a in random_arrays(shapes)]
        for param, gradient in zip(params, random_arrays(shapes, seed=1)):
            param.grad = torch.from_numpy(gradient).to(param.dtype)
        made[name] = make(params).step
    return made


def loops():
    """A training step of PPO's network on 64 states with each form: zeroing, forward, backward, step."""
    import torch

    made = {}
    for name, make in optimizers().items():
        torch.manual_seed(0)
        layers = [torch.nn.Linear(8, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh()]
        network = torch.nn.Sequential(*layers, torch.nn.Linear(64, 4))
        optimizer, x = make(network.parameters()), torch.randn(64, 8)

        def step(network=network, optimizer=optimizer, x=x):
            optimizer.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()

        made[name] = step
    return made


class Torch:
    """Our time divided by that of torch's fused AdamW, both called as PyTorch calls them."""

    params = [list(TORCH_MODELS), ["float32", "bfloat16"]]
    param_names = ["model", "dtype"]
    unit = "times torch fused"
    timeout = 300

    def track_ratio_to_torch(self, model, dtype):
        if not INSTALLED:
            return float("nan")
        made = steps(model, dtype)
        return measure_ratio(made["schuss.torch"], made["torch fused"], seconds=0.05)


class TorchLoop:
    """The same for a whole training step of a small network, of which the optimizer is a part."""

    unit = "times torch fused"
    timeout = 300

    def track_ratio_to_torch(self):
        if not INSTALLED:
            return float("nan")
        made = loops()
        return measure_ratio(made["schuss.torch"], made["torch fused"], seconds=0.05)
