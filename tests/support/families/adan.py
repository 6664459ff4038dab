"""Adan."""

import math

import numpy as np

from families.common import cautioned, schedule


def adan(
    s, p, g, t, *, lr=1e-3, betas=(0.98, 0.92, 0.99), eps=1e-8, weight_decay=0.0, no_prox=False, cautious=None
):  # fmt: skip
    beta1, beta2, beta3 = betas
    change = g - s["prev"] if t > 1 else np.zeros_like(g)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    d = s["d"] = beta2 * s.get("d", 0) + (1 - beta2) * change
    n = s["n"] = beta3 * s.get("n", 0) + (1 - beta3) * (g + beta2 * change) ** 2
    s["prev"] = g
    mean = cautioned(m / (1 - beta1**t), g, cautious)
    u = (mean + beta2 * d / (1 - beta2**t)) / (np.sqrt(n) / math.sqrt(1 - beta3**t) + eps)
    return p * (1 - lr * weight_decay) - lr * u if no_prox else (p - lr * u) / (1 + lr * weight_decay)


ROWS = {
    "Adan": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas": dict(lr=0.01, betas=(0.9, 0.8, 0.95)),
        "betas zero": dict(lr=0.01, betas=(0.0, 0.0, 0.9)),
        "eps": dict(lr=0.01, eps=1e-2),
        "decay": dict(lr=0.01, weight_decay=0.3),
        "no prox": dict(lr=0.01, weight_decay=0.3, no_prox=True),
        "cautious": dict(lr=0.01, cautious="mean"),
        "cautious, plus one, no prox": dict(lr=0.01, cautious="plus_one", weight_decay=0.3, no_prox=True),
        "all": dict(
            lr=schedule, betas=(0.9, 0.7, 0.95), eps=1e-3, weight_decay=0.1, no_prox=True, maximize=True,
            max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
