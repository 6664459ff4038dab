"""Train with gradients from JAX on the CPU, which the optimizer reads in place: nothing is copied.

The parameters are NumPy arrays. JAX takes them as arguments, and `np.from_dlpack` makes a NumPy view of each gradient.
This is safe for two reasons: the step runs after the gradients are computed, so JAX has finished reading the
parameters; and no JAX array is made of the parameters outside the function, where it could share their memory.

Needs `pip install jax`; run `python examples/loops/with_jax.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np

import schuss


@jax.jit
@jax.value_and_grad
def loss_and_gradients(params, x, y):
    hidden = jnp.tanh(x @ params["hidden"]["w"] + params["hidden"]["b"])
    return jnp.mean((hidden @ params["out"]["w"] + params["out"]["b"] - y) ** 2)


def as_numpy(gradient):
    """A view of a JAX gradient on the CPU."""
    view = np.from_dlpack(jax.block_until_ready(gradient))
    assert view.ctypes.data == gradient.unsafe_buffer_pointer(), "this would be a copy"
    return view


def main():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (512, 1)).astype(np.float32)
    y = np.sin(3 * x) + 0.05 * rng.standard_normal(x.shape).astype(np.float32)
    params = {
        "hidden": {
            "w": schuss.init.xavier_normal((1, 64), gain=3.0, rng=rng),
            "b": rng.uniform(-3, 3, 64).astype(np.float32),
        },
        "out": {"w": schuss.init.xavier_normal((64, 1), rng=rng), "b": np.zeros(1, np.float32)},
    }
    optimizer = schuss.Adam(params, lr=schuss.schedules.cosine(2e-2, 1e-4, 1000))

    first = float(loss_and_gradients(params, x, y)[0])
    for _ in range(1000):
        batch = rng.choice(len(x), 64, replace=False)
        _, grads = loss_and_gradients(params, x[batch], y[batch])
        optimizer.step(jax.tree.map(as_numpy, grads))
    last = float(loss_and_gradients(params, x, y)[0])

    print(repr(optimizer).splitlines()[0])
    print(f"loss: {first:.4f} -> {last:.4f}; every gradient was read in JAX's own memory")
    assert last < 0.02 < first


if __name__ == "__main__":
    main()
