"""Train with gradients from HIPS autograd, whose parameters and gradients are NumPy arrays.

Needs `pip install autograd`; run `python examples/loops/with_autograd.py`.
"""

import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad

import schuss


def loss(params, x, y):
    """Mean squared error of a small network, in autograd's NumPy."""
    hidden = anp.tanh(anp.dot(x, params["hidden"]["w"]) + params["hidden"]["b"])
    return anp.mean((anp.dot(hidden, params["out"]["w"]) + params["out"]["b"] - y) ** 2)


def main():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (512, 1))
    y = np.sin(3 * x) + 0.05 * rng.standard_normal(x.shape)
    params = {
        "hidden": {
            "w": schuss.init.xavier_normal((1, 64), gain=3.0, rng=rng, dtype=np.float64),
            "b": rng.uniform(-3, 3, 64),
        },
        "out": {"w": schuss.init.xavier_normal((64, 1), rng=rng, dtype=np.float64), "b": np.zeros(1)},
    }
    optimizer = schuss.Adam(params, lr=schuss.schedules.cosine(2e-2, 1e-4, 1000))

    loss_and_gradients = value_and_grad(loss)
    first, _ = loss_and_gradients(params, x, y)
    for _ in range(1000):
        batch = rng.choice(len(x), 64, replace=False)
        _, grads = loss_and_gradients(params, x[batch], y[batch])
        optimizer.step(grads)  # a nested dict like the parameters, which are updated in place
    last, _ = loss_and_gradients(params, x, y)

    print(repr(optimizer).splitlines()[0])
    print(f"loss: {first:.4f} -> {last:.4f}")
    assert last < 0.02 < first


if __name__ == "__main__":
    main()
