"""Signum, SignSGD and Tiger."""

import numpy as np

from families.common import decayed, schedule


def signum(s, p, g, t, *, lr=1e-3, momentum=0.9, weight_decay=0.0, decoupled_weight_decay=True):
    p, g = decayed(p, g, lr, weight_decay, decoupled_weight_decay)
    if momentum == 0:
        return p - lr * np.sign(g)
    m = s["m"] = momentum * s.get("m", 0) + (1 - momentum) * g
    return p - lr * np.sign(m)


def signsgd(s, p, g, t, *, lr=1e-3, momentum=0.0, weight_decay=0.0, decoupled_weight_decay=True):
    return signum(
        s, p, g, t, lr=lr, momentum=momentum, weight_decay=weight_decay, decoupled_weight_decay=decoupled_weight_decay
    )


def tiger(s, p, g, t, *, lr=1e-3, beta=0.965, weight_decay=0.01):
    p = p * (1 - lr * weight_decay)
    m = s["m"] = beta * s.get("m", 0) + (1 - beta) * g
    return p - lr * np.sign(m)


BOTH = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "momentum": dict(lr=0.01, momentum=0.5),
    "no momentum, decay": dict(lr=0.01, momentum=0.0, weight_decay=0.3),
    "decay, schedule": dict(lr=schedule, momentum=0.9, weight_decay=0.3),
    "L2 decay": dict(lr=0.01, momentum=0.8, weight_decay=0.1, decoupled_weight_decay=False),
    "all": dict(
        lr=schedule, momentum=0.85, weight_decay=0.1, decoupled_weight_decay=False, maximize=True, max_grad_norm=3.0
    ),
}
ROWS = {
    "Signum": BOTH,
    "SignSGD": BOTH,
    "Tiger": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "beta": dict(lr=0.01, beta=0.8),
        "beta zero": dict(lr=0.01, beta=0.0),
        "decay, schedule": dict(lr=schedule, weight_decay=0.3),
        "all": dict(lr=schedule, beta=0.85, weight_decay=0.1, maximize=True, max_grad_norm=3.0),
    },
}
INT8 = {"Signum", "SignSGD", "Tiger"}
STATEFUL = {"SignSGD": dict(momentum=0.9)}
SIGNS = {"Signum", "SignSGD", "Tiger"}
