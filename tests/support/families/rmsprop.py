"""RMSprop."""

import numpy as np

from families.common import l2, schedule


def rmsprop(
    s, p, g, t, *, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False,
    eps_inside_sqrt=False, lr_in_momentum=False, initial_square_avg=0.0,
):  # fmt: skip
    g = l2(g, p, weight_decay)
    v = d = s["v"] = alpha * s.get("v", initial_square_avg) + (1 - alpha) * g * g
    if centered:  # the variance; rounding may make it negative
        a = s["a"] = alpha * s.get("a", 0) + (1 - alpha) * g
        d = np.maximum(v - a * a, 0)
    root = np.sqrt(d + eps) if eps_inside_sqrt else np.sqrt(d) + eps
    if momentum == 0:
        return p - lr * g / root
    if lr_in_momentum:
        b = s["b"] = momentum * s.get("b", 0) + lr * g / root
        return p - b
    b = s["b"] = momentum * s.get("b", 0) + g / root
    return p - lr * b


ROWS = {}

ROWS["RMSprop"] = {
    "defaults": {},
    "alpha": dict(lr=0.01, alpha=0.9),
    "eps": dict(lr=0.01, eps=1e-2),
    "eps inside": dict(lr=0.01, eps=1e-2, eps_inside_sqrt=True),
    "decay": dict(lr=0.01, weight_decay=0.1),
    "square_avg": dict(lr=0.01, initial_square_avg=1.0),
    "momentum": dict(lr=0.01, momentum=0.9),
    "momentum, schedule": dict(lr=schedule, momentum=0.9),
    "lr in momentum": dict(lr=0.01, momentum=0.9, lr_in_momentum=True),
    "lr in momentum, schedule": dict(lr=schedule, momentum=0.9, lr_in_momentum=True),
    "lr in momentum, no momentum": dict(lr=0.01, lr_in_momentum=True),
    "centered": dict(lr=0.01, centered=True),
    "centered, eps inside": dict(lr=0.01, centered=True, eps=1e-2, eps_inside_sqrt=True),
    "centered, decay, square_avg": dict(lr=0.01, centered=True, weight_decay=0.1, initial_square_avg=0.5),
    "centered, momentum": dict(lr=0.01, centered=True, momentum=0.5),
    "tensorflow": dict(
        lr=0.01, alpha=0.9, momentum=0.9, eps=1e-7, initial_square_avg=1.0, eps_inside_sqrt=True,
        lr_in_momentum=True,
    ),
    "all": dict(
        lr=schedule, alpha=0.95, eps=1e-3, weight_decay=0.1, momentum=0.8, centered=True, eps_inside_sqrt=True,
        lr_in_momentum=True, initial_square_avg=0.1, maximize=True, max_grad_norm=3.0,
    ),
}  # fmt: skip
