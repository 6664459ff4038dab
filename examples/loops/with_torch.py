"""Train a PyTorch model on the CPU: parameters and gradients are shared with the optimizer, nothing is copied.

`tensor.numpy()` is a view, so a step changes the model itself, and `zero_grads=True` zeroes PyTorch's gradients in the
same pass, instead of `zero_grad()`. Do not call `step` between a forward pass and its `backward()`: PyTorch does not
notice that its parameters have changed.

Needs `pip install torch`; run `python examples/loops/with_torch.py`.
"""

import numpy as np
import torch

import schuss


def main():
    torch.manual_seed(0)
    x = torch.rand(512, 1) * 4 - 2
    y = torch.sin(3 * x) + 0.05 * torch.randn(x.shape)
    model = torch.nn.Sequential(torch.nn.Linear(1, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh())
    model.append(torch.nn.Linear(64, 1))

    tensors = dict(model.named_parameters())
    params = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    optimizer = schuss.AdamW(params, lr=schuss.schedules.cosine(1e-2, 1e-4, 600))

    def loss_of(rows):
        return torch.nn.functional.mse_loss(model(x[rows]), y[rows])

    everything = torch.arange(len(x))
    first = loss_of(everything).item()
    for _ in range(600):
        loss_of(torch.randperm(len(x))[:64]).backward()
        grads = {name: tensor.grad.numpy() for name, tensor in tensors.items()}
        optimizer.step(grads, zero_grads=True)
    last = loss_of(everything).item()

    assert all(np.shares_memory(params[name], tensor.detach().numpy()) for name, tensor in tensors.items())
    assert all(tensor.grad.count_nonzero() == 0 for tensor in tensors.values())
    print(repr(optimizer).splitlines()[0])
    print(f"loss: {first:.4f} -> {last:.4f}; the model's own memory was updated")
    assert last < 0.02 < first


if __name__ == "__main__":
    main()
