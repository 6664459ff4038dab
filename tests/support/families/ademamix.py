"""AdEMAMix."""

import math

import numpy as np

from families.common import schedule


def ademamix(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999, 0.9999), alpha=5.0, eps=1e-8, weight_decay=0.0, alpha_warmup=None,
    beta3_warmup=None,
):  # fmt: skip
    beta1, beta2, slow = betas
    p = p * (1 - lr * weight_decay)
    if alpha_warmup is not None:
        alpha = alpha * min(t / alpha_warmup, 1)
    if beta3_warmup is not None and t < beta3_warmup:
        x, log1, log3 = t / beta3_warmup, math.log(beta1), math.log(slow)
        slow = math.exp(log1 * log3 / ((1 - x) * log3 + x * log1))
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    m2 = s["m2"] = slow * s.get("m2", 0) + (1 - slow) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    return p - lr * (m / (1 - beta1**t) + alpha * m2) / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)


ROWS = {
    "AdEMAMix": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas": dict(lr=0.01, betas=(0.8, 0.95, 0.99)),
        "betas zero": dict(lr=0.01, betas=(0.0, 0.9, 0.0)),
        "alpha": dict(lr=0.01, alpha=2.0),
        "alpha zero": dict(lr=0.01, alpha=0.0),
        "eps": dict(lr=0.01, eps=1e-2),
        "decay": dict(lr=0.01, weight_decay=0.3),
        "warm-up": dict(lr=0.01, alpha_warmup=10, beta3_warmup=10),
        "warm-up of beta3": dict(lr=0.01, beta3_warmup=1000),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9, 0.99), alpha=3.0, eps=1e-3, weight_decay=0.1, alpha_warmup=3,
            beta3_warmup=7, maximize=True, max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
INT8 = {"AdEMAMix"}
