"""AdamP and SGDP."""

import math

import numpy as np

from families.common import schedule


def projected(u, p, g, delta, wd_ratio, eps):
    """The direction without its component along the weights, where these are nearly orthogonal to the gradient."""
    if p.ndim < 2 or p.size == 0:
        return u, 1.0
    for count in (len(p), 1):
        gs, ps, us = (a.reshape(count, -1) for a in (g, p, u))
        norm_g, norm_p = np.sqrt(np.sum(gs * gs, 1)), np.sqrt(np.sum(ps * ps, 1))
        cosines = abs(np.sum(gs * ps, 1)) / (np.maximum(norm_g, eps) * np.maximum(norm_p, eps))
        if np.max(cosines) < delta / math.sqrt(ps.shape[1]):
            unit = ps / (norm_p + eps)[:, None]
            return (us - unit * np.sum(unit * us, 1, keepdims=True)).reshape(p.shape), wd_ratio
    return u, 1.0


def adamp(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, delta=0.1, wd_ratio=0.1, nesterov=False
):
    beta1, beta2 = betas
    m = s["m"] = beta1 * s.get("m", np.zeros_like(p)) + (1 - beta1) * g
    v = s["v"] = beta2 * s.get("v", np.zeros_like(p)) + (1 - beta2) * g * g
    u = (beta1 * m + (1 - beta1) * g if nesterov else m) / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)
    u, ratio = projected(u, p, g, delta, wd_ratio, eps)
    return p * (1 - lr * weight_decay * ratio) - lr / (1 - beta1**t) * u


def sgdp(
    s, p, g, t, *, lr=1e-3, momentum=0.0, dampening=0.0, eps=1e-8, weight_decay=0.0, delta=0.1, wd_ratio=0.1,
    nesterov=False,
):  # fmt: skip
    b = s["b"] = momentum * s.get("b", np.zeros_like(p)) + (1 - dampening) * g
    u, ratio = projected(g + momentum * b if nesterov else b, p, g, delta, wd_ratio, eps)
    return p * (1 - lr * weight_decay * ratio / (1 - momentum)) - lr * u


# With these all rows are projected, now and then only the whole array, or nothing.
BY_DELTA = {
    "rows": dict(delta=10.0),
    "the array": dict(delta=0.9),
    "nothing": dict(delta=0.0),
}
ROWS = {
    "AdamP": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas": dict(lr=0.01, betas=(0.8, 0.95), delta=10.0),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9), delta=10.0),
        "nesterov": dict(lr=0.01, nesterov=True, delta=10.0),
        "eps": dict(lr=0.01, eps=1e-2, delta=10.0),
        **{f"decay, {row}": dict(lr=0.01, weight_decay=0.3, wd_ratio=0.5) | own for row, own in BY_DELTA.items()},
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, delta=8.0, wd_ratio=0.3, nesterov=True,
            maximize=True, max_grad_norm=3.0,
        ),
    },
    "SGDP": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "momentum": dict(lr=0.01, momentum=0.9, delta=10.0),
        "dampening": dict(lr=0.01, momentum=0.8, dampening=0.5, delta=10.0),
        "nesterov": dict(lr=0.01, momentum=0.9, nesterov=True, delta=10.0),
        "nesterov alone": dict(lr=0.01, dampening=0.25, nesterov=True, delta=10.0),
        **{
            f"decay, {row}": dict(lr=0.01, momentum=0.5, weight_decay=0.3, wd_ratio=0.5) | own
            for row, own in BY_DELTA.items()
        },
        "all": dict(
            lr=schedule, momentum=0.85, dampening=0.1, eps=1e-3, weight_decay=0.1, delta=8.0, wd_ratio=0.3,
            nesterov=True, maximize=True, max_grad_norm=3.0,
        ),
    },
}  # fmt: skip
