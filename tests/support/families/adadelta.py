"""Adadelta."""

import numpy as np

from families.common import decayed, schedule


def adadelta(s, p, g, t, *, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0, decoupled_weight_decay=False):
    p, g = decayed(p, g, lr, weight_decay, decoupled_weight_decay)
    v = s["v"] = rho * s.get("v", 0) + (1 - rho) * g * g
    old = s.get("u", 0)
    d = np.sqrt(old + eps) / np.sqrt(v + eps) * g
    s["u"] = rho * old + (1 - rho) * d * d
    return p - lr * d


ROWS = {
    "Adadelta": {
        "defaults": {},
        "lr": dict(lr=0.1),
        "rho, eps": dict(lr=0.5, rho=0.7, eps=1e-3),
        "decay": dict(weight_decay=0.1),
        "decoupled": dict(lr=0.5, weight_decay=0.1, decoupled_weight_decay=True),
        "all": dict(
            lr=schedule, rho=0.8, eps=1e-2, weight_decay=0.1, decoupled_weight_decay=True, maximize=True,
            max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
INT8 = {"Adadelta"}
