"""Fromage."""

import math

import numpy as np

from families.common import schedule


def fromage(s, p, g, t, *, lr=1e-2):
    norm_p, norm_g = np.sqrt(np.sum(p * p)), np.sqrt(np.sum(g * g))
    ratio = norm_p / norm_g if norm_p != 0 and norm_g != 0 else 1.0
    return (p - lr * ratio * g) / math.sqrt(1 + lr * lr)


ROWS = {
    "Fromage": {
        "defaults": {},
        "lr": dict(lr=0.3),
        "all": dict(lr=schedule, maximize=True, max_grad_norm=3.0),
    }
}
