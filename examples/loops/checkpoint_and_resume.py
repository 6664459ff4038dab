"""Save regularly, and resume after an interruption: the result is bit-identical to an uninterrupted run.

A checkpoint has the parameters, the optimizer's state and its step count. Schedule and batches depend only on the step,
so there is no random state to save.

Needs only NumPy; run `python examples/loops/checkpoint_and_resume.py`.
"""

import tempfile
from pathlib import Path

import numpy as np

import schuss

STEPS, EVERY = 300, 50


def loss_and_gradients(params, x, y):
    """Mean squared error of a small network, and its gradients."""
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    error = hidden @ params["w2"] + params["b2"] - y
    d2 = 2 * error / len(x)
    d1 = (d2 @ params["w2"].T) * (1 - hidden**2)
    grads = {"w1": x.T @ d1, "b1": d1.sum(axis=0), "w2": hidden.T @ d2, "b2": d2.sum(axis=0)}
    return np.mean(error**2), grads


def train(x, y, checkpoint, interrupt_at=None):
    """Starts from the checkpoint if there is one."""
    rng = np.random.default_rng(1)
    params = {
        "w1": schuss.init.xavier_normal((1, 64), gain=3.0, rng=rng),
        "b1": rng.uniform(-3, 3, 64).astype(np.float32),
        "w2": schuss.init.xavier_normal((64, 1), rng=rng),
        "b2": np.zeros(1, np.float32),
    }
    optimizer = schuss.AdamW(params, lr=schuss.schedules.warmup_cosine(3e-2, 20, STEPS))
    if checkpoint.exists():
        schuss.load(checkpoint, optimizer)
        print(f"resumed at step {optimizer.step_count}")
    while optimizer.step_count < STEPS:
        if optimizer.step_count == interrupt_at:
            raise KeyboardInterrupt
        batch = np.random.default_rng((2, optimizer.step_count)).choice(len(x), 64, replace=False)
        _, grads = loss_and_gradients(params, x[batch], y[batch])
        optimizer.step(grads)
        if optimizer.step_count % EVERY == 0:
            schuss.save(checkpoint, optimizer)  # replaces the old file only when it is complete
    return params


def main():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (512, 1)).astype(np.float32)
    y = (np.sin(3 * x) + 0.05 * rng.standard_normal(x.shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        expected = train(x, y, Path(folder) / "uninterrupted.safetensors")
        checkpoint = Path(folder) / "interrupted.safetensors"
        try:
            train(x, y, checkpoint, interrupt_at=187)
        except KeyboardInterrupt:
            print("interrupted at step 187")
        params = train(x, y, checkpoint)

    loss, _ = loss_and_gradients(params, x, y)
    print(f"loss: {y.var():.4f} without a network, {loss:.4f} with it; same bits as without the interruption")
    assert loss < 0.1 < y.var()
    for name, array in params.items():
        assert array.tobytes() == expected[name].tobytes(), name


if __name__ == "__main__":
    main()
