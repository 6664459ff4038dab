"""Grams."""

import math

import numpy as np

from families.common import schedule


def grams(s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
    beta1, beta2 = betas
    p = p * (1 - lr * weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    u = m / (1 - beta1**t) / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)
    return p - lr * np.sign(g) * np.abs(u)


ROWS = {
    "Grams": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas, eps": dict(lr=0.01, betas=(0.8, 0.95), eps=1e-4),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
        "decay": dict(lr=0.01, weight_decay=0.3),
        "all": dict(lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, maximize=True, max_grad_norm=3.0),
    }
}
INT8 = {"Grams"}
