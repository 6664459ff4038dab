"""ASGD."""

import numpy as np

from families.common import l2, schedule


def asgd(s, p, g, t, *, lr=1e-2, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0.0):
    g = l2(g, p, weight_decay)
    eta = s["eta"] if t > 1 else lr
    p = p * (1 - lambd * eta) - eta * g
    mu = 1 / max(1, t - 1 - t0)
    s["ax"] = p if mu == 1 else s["ax"] + mu * (p - s["ax"])
    s["eta"] = np.array(lr / (1 + lambd * lr * t) ** alpha if p.size else 0.0)
    return p


ROWS = {
    "ASGD": {
        "defaults": {},
        "lr": dict(lr=0.1),
        "lambd": dict(lr=0.1, lambd=0.1),
        "alpha": dict(lr=0.1, lambd=0.1, alpha=0.5),
        "t0": dict(lr=0.1, t0=5.0),
        "decay": dict(lr=0.1, weight_decay=0.1),
        "all": dict(lr=schedule, lambd=0.05, alpha=1.0, t0=3.0, weight_decay=0.1, maximize=True, max_grad_norm=3.0),
    }
}
SCOPES = {"ASGD": {"eta": "array"}}
