"""StableAdamW."""

import numpy as np

from families.common import schedule


def stableadamw(s, p, g, t, *, lr=1e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=1e-2):
    beta1, beta2 = (beta * (1 - beta ** (t - 1)) / (1 - beta**t) for beta in betas)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    rms = np.sqrt(np.mean(g * g / np.maximum(v, eps * eps))) if p.size else 0.0
    rate = lr / np.maximum(1.0, rms)
    return p * (1 - rate * weight_decay) - rate * m / (np.sqrt(v) + eps)


ROWS = {
    "StableAdamW": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas": dict(lr=0.01, betas=(0.8, 0.95)),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
        "eps": dict(lr=0.01, eps=1e-2),
        "decay": dict(lr=0.01, weight_decay=0.3),
        "no decay": dict(lr=0.01, weight_decay=0.0),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, maximize=True, max_grad_norm=3.0
        ),
    }
}  # fmt: skip
