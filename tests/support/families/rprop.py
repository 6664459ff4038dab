"""Rprop."""

import numpy as np

from families.common import schedule


def rprop(s, p, g, t, *, lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50.0)):
    agree = g * s.get("prev", np.zeros_like(g))
    factor = np.where(agree > 0, etas[1], np.where(agree < 0, etas[0], 1.0))
    size = s["size"] = np.clip(s.get("size", lr) * factor, *step_sizes)
    g = s["prev"] = np.where(agree < 0, 0.0, g)
    return p - np.sign(g) * size


ROWS = {
    "Rprop": {
        "defaults": {},
        "lr": dict(lr=0.1),
        "etas": dict(lr=0.1, etas=(0.3, 1.5)),
        "step sizes": dict(lr=0.1, step_sizes=(0.05, 0.2)),
        "first size": dict(lr=1.0, step_sizes=(1e-3, 0.5)),
        "all": dict(lr=schedule, etas=(0.6, 1.4), step_sizes=(1e-3, 0.3), maximize=True, max_grad_norm=3.0),
    }
}
SIGNS = {"Rprop"}
