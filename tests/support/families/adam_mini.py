"""Adam-mini."""

import math

import numpy as np

from families.common import schedule


def blocks_shape(shape, blocks="rows", **_):
    """The shape of the second moments of an array of this shape."""
    if isinstance(blocks, int):
        return (blocks,)
    if len(shape) < 2 or blocks == "array":
        return ()
    ones = (1,) * (len(shape) - 1)
    return (shape[0], *ones) if blocks == "rows" else (*ones, shape[-1])


def adammini(s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, blocks="rows"):
    beta1, beta2 = betas
    shape = blocks_shape(p.shape, blocks)
    s.setdefault("m", np.zeros_like(p))
    s.setdefault("v", np.zeros(shape))
    if p.size == 0:
        return p
    if isinstance(blocks, int):
        squares = np.mean((g * g).reshape(blocks, -1), axis=1)
    elif shape == ():
        squares = np.mean(g * g)
    else:
        squares = np.mean(g * g, axis=tuple(i for i in range(p.ndim) if shape[i] != p.shape[i]), keepdims=True)
    m = s["m"] = beta1 * s["m"] + (1 - beta1) * g
    v = s["v"] = beta2 * s["v"] + (1 - beta2) * squares
    if isinstance(blocks, int):
        v = np.repeat(v, p.size // blocks).reshape(p.shape)
    return p * (1 - lr * weight_decay) - lr / (1 - beta1**t) * m / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)


ROWS = {
    "AdamMini": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas, eps": dict(lr=0.01, betas=(0.8, 0.95), eps=1e-3),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
        "columns, decay": dict(lr=0.01, blocks="cols", weight_decay=0.3),
        "array": dict(lr=0.01, blocks="array"),
        "one piece": dict(lr=0.01, blocks=1),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, blocks="cols", maximize=True, max_grad_norm=3.0
        ),
    }
}  # fmt: skip
INT8 = {"AdamMini"}
SCOPES = {"AdamMini": {"v": blocks_shape}}
