"""AdaBound and AMSBound."""

import math

import numpy as np

from families.common import decayed, schedule


def adabound(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), final_lr=0.1, gamma=1e-3, eps=1e-8, weight_decay=0.0,
    decoupled_weight_decay=False, amsbound=False, initial_lr=None,
):  # fmt: skip
    beta1, beta2 = betas
    p, g = decayed(p, g, lr, weight_decay, decoupled_weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    if amsbound:
        v = s["vmax"] = np.maximum(s.get("vmax", 0), v)
    final = final_lr * lr / initial_lr
    rate = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t) / (np.sqrt(v) + eps)
    return p - np.clip(rate, final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))) * m


ROWS = {
    "AdaBound": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas": dict(lr=0.01, betas=(0.8, 0.95)),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
        "bounds": dict(lr=0.01, final_lr=0.05, gamma=0.05),
        "bounds, schedule": dict(lr=schedule, final_lr=0.02, gamma=0.5),
        "eps": dict(lr=0.01, eps=1e-2),
        "decay": dict(lr=0.01, weight_decay=0.1),
        "decoupled": dict(lr=0.01, weight_decay=0.3, decoupled_weight_decay=True),
        "amsbound": dict(lr=0.01, amsbound=True, betas=(0.9, 0.9), gamma=0.1),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), final_lr=0.05, gamma=0.1, eps=1e-3, weight_decay=0.1,
            decoupled_weight_decay=True, amsbound=True, maximize=True, max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
INT8 = {"AdaBound"}
