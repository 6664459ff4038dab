"""LaProp."""

import math

import numpy as np

from families.common import cautioned, schedule


def laprop(
    s, p, g, t, *, lr=4e-4, betas=(0.9, 0.999), eps=1e-15, weight_decay=0.0, lr_in_momentum=False, cautious=None
):  # fmt: skip
    beta1, beta2 = betas
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    n = g / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)
    rate = lr if lr_in_momentum else 1
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * rate * n
    w = s["w"] = np.array(beta1 * s.get("w", 0) + (1 - beta1) * rate if p.size else 0.0)
    if p.size and not lr_in_momentum:
        np.testing.assert_allclose(w, 1 - beta1**t, 1e-12)
    return (p - (lr / w if w else 0) * cautioned(m, g, cautious)) * (1 - lr * weight_decay)


def late(step):
    """A schedule whose first rate is 0."""
    return 0.01 * step


ROWS = {
    "LaProp": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas, eps": dict(lr=0.01, betas=(0.8, 0.95), eps=1e-3),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
        "decay": dict(lr=0.01, weight_decay=0.3),
        "lr in momentum": dict(lr=0.01, lr_in_momentum=True),
        "lr in momentum, late": dict(lr=late, lr_in_momentum=True),
        "cautious": dict(lr=0.01, cautious="mean"),
        "cautious, plus one, decay": dict(lr=late, cautious="plus_one", weight_decay=0.3, lr_in_momentum=True),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, lr_in_momentum=True, maximize=True,
            max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
INT8 = {"LaProp"}
SCOPES = {"LaProp": {"w": "array"}}
