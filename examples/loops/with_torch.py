"""Train a PyTorch model on the CPU: one import line makes its training loop use this package.

`schuss.torch` has every optimizer of the package as a `torch.optim.Optimizer`. It updates the model's own memory;
gradients are read where PyTorch puts them, and nothing is copied. Schedulers, checkpoints, hooks and closures work as
before, and a checkpoint of `torch.optim.AdamW` loads.

Needs `pip install torch`; run `python examples/loops/with_torch.py`.
"""

import copy

import torch
import torch.optim as torch_optim

import schuss.torch as optim  # was: import torch.optim as optim


def main():
    torch.manual_seed(0)
    x = torch.rand(512, 1) * 4 - 2
    y = torch.sin(3 * x) + 0.05 * torch.randn(x.shape)
    model = torch.nn.Sequential(torch.nn.Linear(1, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh())
    model.append(torch.nn.Linear(64, 1))
    twin = copy.deepcopy(model)

    def train(model, optimizer, steps=600):
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 1e-4)
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            rows = torch.randperm(len(x), generator=generator)[:64]
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
            scheduler.step()
        return torch.nn.functional.mse_loss(model(x), y).item()

    first = torch.nn.functional.mse_loss(model(x), y).item()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    last = train(model, optimizer)
    theirs = torch_optim.AdamW(twin.parameters(), lr=1e-2)
    expected = train(twin, theirs)
    print(f"loss: {first:.4f} -> {last:.4f}; with torch.optim: {expected:.4f}")
    assert last < 0.02 < first
    assert abs(last - expected) < 1e-3

    theirs.load_state_dict(optimizer.state_dict())  # and the other way round
    optimizer.load_state_dict(theirs.state_dict())


if __name__ == "__main__":
    main()
