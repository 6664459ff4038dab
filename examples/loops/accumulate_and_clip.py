"""Accumulate the gradients of micro-batches, then clip and step once: a large batch in the memory of a small one.

The gradients are added in the optimizer's buffers `opt.grads`. One call of `step` divides by the number of
micro-batches, clips by the global norm, updates the parameters and zeroes the buffers.

Needs only NumPy; run `python examples/loops/accumulate_and_clip.py`.
"""

import numpy as np

import schuss

STEPS, BATCH, MICRO = 300, 256, 32


def loss_and_gradients(params, x, y):
    """Mean squared error of a small network, and its gradients."""
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    error = hidden @ params["w2"] + params["b2"] - y
    d2 = 2 * error / len(x)
    d1 = (d2 @ params["w2"].T) * (1 - hidden**2)
    grads = {"w1": x.T @ d1, "b1": d1.sum(axis=0), "w2": hidden.T @ d2, "b2": d2.sum(axis=0)}
    return np.mean(error**2), grads


def train(x, y, micro):
    rng = np.random.default_rng(1)
    params = {
        "w1": schuss.init.xavier_normal((1, 64), gain=3.0, rng=rng, dtype=np.float64),
        "b1": rng.uniform(-3, 3, 64),
        "w2": schuss.init.xavier_normal((64, 1), rng=rng, dtype=np.float64),
        "b2": np.zeros(1),
    }
    optimizer = schuss.SGD(params, lr=0.02, momentum=0.9, max_grad_norm=1.0)
    norms = []
    for _ in range(STEPS):
        batch = rng.choice(len(x), BATCH, replace=False)
        for start in range(0, BATCH, micro):
            rows = batch[start : start + micro]
            _, grads = loss_and_gradients(params, x[rows], y[rows])
            for name, buffer in optimizer.grads.items():
                buffer += grads[name]
        optimizer.step(grad_scale=BATCH // micro, zero_grads=True)
        norms.append(optimizer.grad_norm)  # of the mean gradient, before clipping
    return params, np.array(norms)


def main():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (2048, 1))
    y = np.sin(3 * x) + 0.05 * rng.standard_normal(x.shape)
    whole, _ = train(x, y, micro=BATCH)
    params, norms = train(x, y, micro=MICRO)

    last, _ = loss_and_gradients(params, x, y)
    difference = max(np.abs(params[name] - whole[name]).max() for name in params)
    print(f"{STEPS} steps of {BATCH // MICRO} micro-batches, {np.mean(norms > 1):.0%} of them clipped")
    print(f"loss: {y.var():.4f} without a network, {last:.4f} with it")
    print(f"largest difference from training with whole batches: {difference:.1e}")
    assert last < 0.1 < y.var()
    assert difference < 1e-7
    assert (norms > 1).any()


if __name__ == "__main__":
    main()
