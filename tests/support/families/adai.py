"""Adai."""

import numpy as np

from families.common import decayed, schedule


def adai(
    s, p, g, t, *, lr=1e-3, betas=(0.1, 0.99), eps=1e-3, weight_decay=0.0, decoupled_weight_decay=False, dampening=1.0
):
    """The state `w` is one minus the product of all momenta."""
    beta0, beta2 = betas
    p, g = decayed(p, g, lr, weight_decay, decoupled_weight_decay)
    v = s["v"] = beta2 * s.get("v", np.zeros_like(p)) + (1 - beta2) * g * g
    corrected = v / (1 - beta2**t)
    mean = np.maximum(np.mean(corrected), 1e-3) if p.size else 1.0
    beta1 = np.clip(1 - beta0 * (corrected / mean) ** (1 / (3 - 2 * dampening)), 0, 1 - eps)
    m = s["m"] = beta1 * s.get("m", np.zeros_like(p)) + (1 - beta1) ** dampening * g
    product = (1 - s.get("w", np.zeros_like(p))) * beta1
    s["w"] = 1 - product
    return p - lr * beta0 ** (1 - dampening) * m / s["w"]


ROWS = {
    "Adai": {
        "defaults": {},
        "lr": dict(lr=0.1),
        "betas": dict(lr=0.1, betas=(0.3, 0.9)),
        "eps": dict(lr=0.1, eps=0.05),
        "decay": dict(lr=0.1, weight_decay=0.1),
        "decoupled": dict(lr=0.1, weight_decay=0.3, decoupled_weight_decay=True),
        "half dampened": dict(lr=0.1, dampening=0.5),
        "not dampened": dict(lr=0.1, dampening=0.0, betas=(0.3, 0.9)),
        "all": dict(
            lr=schedule, betas=(0.2, 0.9), eps=1e-2, weight_decay=0.1, decoupled_weight_decay=True, dampening=0.8,
            maximize=True, max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
JOINT = {"Adai"}
