"""QHM and QHAdam."""

import numpy as np

from families.common import decayed, schedule


def qhm(s, p, g, t, *, lr=1e-3, momentum=0.999, nu=0.7, weight_decay=0.0, decoupled_weight_decay=False):
    p, g = decayed(p, g, lr, weight_decay, decoupled_weight_decay)
    # Terms with weight 0 are left out, not multiplied: an infinity stays one.
    b = s["b"] = momentum * s["b"] + (1 - momentum) * g if momentum and t > 1 else (1 - momentum) * g
    return p - lr * (nu * b + (1 - nu) * g if nu < 1 else b)


def qhadam(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), nus=(1.0, 1.0), eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False
):
    (beta1, beta2), (nu1, nu2) = betas, nus
    p, g = decayed(p, g, lr, weight_decay, decoupled_weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    mean = (1 - nu1) * g + nu1 * m / (1 - beta1**t)
    square = (1 - nu2) * g * g + nu2 * v / (1 - beta2**t)
    return p - lr * mean / (np.sqrt(square) + eps)


ROWS = {
    "QHM": {
        "defaults": {},
        "lr": dict(lr=0.1),
        "momentum, nu": dict(lr=0.1, momentum=0.9, nu=0.5),
        "no momentum": dict(lr=0.1, momentum=0.0),
        "nu 0": dict(lr=0.1, momentum=0.9, nu=0.0),
        "nu 1": dict(lr=0.1, momentum=0.9, nu=1.0),
        "decay": dict(lr=0.1, momentum=0.9, weight_decay=0.1),
        "all": dict(
            lr=schedule, momentum=0.8, nu=0.6, weight_decay=0.1, decoupled_weight_decay=True, maximize=True,
            max_grad_norm=3.0,
        ),
    },
    "QHAdam": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "authors": dict(lr=0.01, betas=(0.995, 0.999), nus=(0.7, 1.0)),
        "nus": dict(lr=0.01, nus=(0.8, 0.6)),
        "nus 0": dict(lr=0.01, nus=(0.0, 0.0), eps=1e-2),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
        "eps": dict(lr=0.01, eps=1e-2),
        "decay": dict(lr=0.01, nus=(0.7, 1.0), weight_decay=0.1),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), nus=(0.6, 0.9), eps=1e-3, weight_decay=0.1, decoupled_weight_decay=True,
            maximize=True, max_grad_norm=3.0,
        ),
    },
}  # fmt: skip
INT8 = {"QHM", "QHAdam"}
