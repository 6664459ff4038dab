"""MARS."""

import math

import numpy as np

from families.common import cautioned, schedule


def mars(
    s, p, g, t, *, lr=3e-3, betas=(0.95, 0.99), gamma=0.025, eps=1e-8, weight_decay=0.0, base="adamw",
    optimize_1d=False, lr_1d=None, betas_1d=(0.9, 0.95), weight_decay_1d=None, cautious=None, initial_lr=None,
):  # fmt: skip
    beta1, beta2 = betas
    c = g
    if p.ndim > 1 or optimize_1d:
        if t > 1:
            c = g + gamma * beta1 / (1 - beta1) * (g - s["prev"])
        s["prev"] = g
        c = c / np.maximum(1, np.sqrt(np.sum(c * c)))
    else:
        beta1, beta2 = betas_1d
        lr = lr if lr_1d is None else lr_1d * lr / initial_lr
        weight_decay = weight_decay if weight_decay_1d is None else weight_decay_1d
        base = "adamw"
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * c
    p = p * (1 - lr * weight_decay)
    if base == "lion":
        return p - lr * cautioned(np.sign(m), g, cautious)
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * c * c
    u = m / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)
    return p - lr / (1 - beta1**t) * cautioned(u, g, cautious)


ROWS = {
    "MARS": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas, eps": dict(lr=0.01, betas=(0.8, 0.9), eps=1e-3),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
        "gamma": dict(lr=0.01, gamma=0.3, optimize_1d=True),
        "gamma zero": dict(lr=0.01, gamma=0.0),
        "decay": dict(lr=0.01, weight_decay=0.3),
        "vectors of their own": dict(lr=0.01, lr_1d=0.02, betas_1d=(0.7, 0.8), weight_decay=0.3, weight_decay_1d=0.1),
        "vectors of their own, schedule": dict(lr=schedule, lr_1d=0.02, weight_decay_1d=0.2),
        "lion": dict(lr=0.01, base="lion", optimize_1d=True),
        "lion, decay, schedule": dict(lr=schedule, base="lion", weight_decay=0.3),
        "cautious": dict(lr=0.01, cautious="mean", weight_decay=0.1),
        "cautious, all dimensions": dict(lr=0.01, cautious="plus_one", optimize_1d=True),
        "cautious, lion": dict(lr=0.01, cautious="mean", base="lion", weight_decay=0.1),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), gamma=0.1, eps=1e-3, weight_decay=0.1, optimize_1d=True, maximize=True,
            max_grad_norm=3.0,
        ),
    }
}  # fmt: skip


def prev_shape(shape, optimize_1d=False, **_):
    """MARS's arrays have the gradient of the step before, others not."""
    return shape if len(shape) > 1 or optimize_1d else None


def v_shape(shape, base="adamw", **options):
    """All but Lion's arrays have second moments."""
    return None if base == "lion" and prev_shape(shape, **options) is not None else shape


SCOPES = {"MARS": {"prev": prev_shape, "v": v_shape}}
