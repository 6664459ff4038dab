"""MADGRAD."""

import math

import numpy as np

from families.common import l2, schedule


def madgrad(
    s, p, g, t, *, lr=1e-2, momentum=0.9, eps=1e-6, weight_decay=0.0, decoupled_weight_decay=False
):  # fmt: skip
    x0 = s.setdefault("x0", p)
    rate = lr + eps if lr else 0.0
    if not decoupled_weight_decay:
        g = l2(g, p, weight_decay)
    v = s["v"] = s.get("v", np.zeros_like(p)) + rate * math.sqrt(t) * g * g
    total = s["s"] = s.get("s", np.zeros_like(p)) + rate * math.sqrt(t) * g
    denominator = np.cbrt(v) + eps
    z = x0 - np.where(denominator == 0, 0, total / np.where(denominator == 0, 1, denominator))
    kept = momentum - (rate * weight_decay if decoupled_weight_decay else 0)
    return (kept * p if kept else 0) + (1 - momentum) * z


ROWS = {}

ROWS["MADGRAD"] = {
    "defaults": {},
    "lr": dict(lr=0.1),
    "momentum": dict(lr=0.1, momentum=0.5),
    "no momentum": dict(lr=0.1, momentum=0.0),
    "eps": dict(lr=0.1, eps=1e-2),
    "no eps": dict(lr=0.1, eps=0.0),
    "decay": dict(lr=0.1, weight_decay=0.1),
    "decoupled": dict(lr=0.1, weight_decay=0.3, decoupled_weight_decay=True),
    "all": dict(
        lr=schedule, momentum=0.8, eps=1e-3, weight_decay=0.1, decoupled_weight_decay=True, maximize=True,
        max_grad_norm=3.0,
    ),
}  # fmt: skip
