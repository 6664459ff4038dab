"""AdamAtan2."""

import math

import numpy as np

from families.common import schedule


def adamatan2(s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-2, a=1.0, b=1.0):
    beta1, beta2 = betas
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    angle = np.arctan2(m / (1 - beta1**t), b * np.sqrt(v) / math.sqrt(1 - beta2**t))
    return p * (1 - lr * weight_decay) - lr * a * angle


ROWS = {}

ROWS["AdamAtan2"] = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.95)),
    "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
    "decay": dict(lr=0.01, weight_decay=0.3),
    "no decay": dict(lr=0.01, weight_decay=0.0),
    "a, b": dict(lr=0.01, a=1.27, b=2.0),
    "b zero": dict(lr=0.01, b=0.0),
    "all": dict(
        lr=schedule, betas=(0.85, 0.9), weight_decay=0.1, a=1.27, b=0.5, maximize=True, max_grad_norm=3.0
    ),
}  # fmt: skip

INT8 = {"AdamAtan2"}
