"""NAdam."""

import math

import numpy as np

from families.common import cautioned, decayed, schedule


def nadam(
    s, p, g, t, *, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, momentum_decay=4e-3,
    decoupled_weight_decay=False, form="dozat", cautious=None,
):  # fmt: skip
    beta1, beta2 = betas

    def mu(t):
        return beta1 if momentum_decay is None else beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    p, g = decayed(p, g, lr, weight_decay, decoupled_weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    product = s.get("mu_product", 1.0) * mu(t)
    s["mu_product"] = np.array(product if p.size else 1.0)
    u = (1 - mu(t)) / (1 - product) * g + mu(t + 1) / (1 - product * mu(t + 1)) * m
    if form == "nadamw":
        u = (beta1 * m + (1 - beta1) * g) / (1 - beta1**t)
    return p - lr * cautioned(u, g, cautious) / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)


ROWS = {
    "NAdam": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas, eps": dict(lr=0.01, betas=(0.8, 0.95), eps=1e-3),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
        "keras": dict(lr=0.01, eps=1e-7, momentum_decay=1.0),
        "optax": dict(lr=0.01, momentum_decay=None),
        "decay": dict(lr=0.01, weight_decay=0.1),
        "timm": dict(lr=0.01, form="nadamw", weight_decay=0.3, decoupled_weight_decay=True),
        "cautious": dict(lr=0.01, cautious="mean", weight_decay=0.1),
        "cautious, timm": dict(
            lr=schedule, cautious="plus_one", form="nadamw", weight_decay=0.3, decoupled_weight_decay=True
        ),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, momentum_decay=0.1, decoupled_weight_decay=True,
            maximize=True, max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
INT8 = {"NAdam"}
SCOPES = {"NAdam": {"mu_product": "array"}}
