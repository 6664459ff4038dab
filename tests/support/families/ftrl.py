"""FTRL."""

import numpy as np

from families.common import schedule


def ftrl(
    s, p, g, t, *, lr=1e-3, lr_power=-0.5, initial_accumulator_value=0.1, l1=0.0, l2=0.0, l2_shrinkage=0.0, beta=0.0
):
    n = s.setdefault("n", np.full_like(p, initial_accumulator_value))
    z = s.setdefault("z", np.zeros_like(p))
    if lr == 0:
        return p
    grown = (n + g * g) ** -lr_power
    sigma = (grown - n**-lr_power) / lr
    s["n"] = n + g * g
    z = s["z"] = z + (g + 2 * l2_shrinkage * p if l2_shrinkage else g) - sigma * p
    curvature = (grown + beta) / lr + l2
    zero = np.abs(z) <= l1
    return np.where(zero, 0, (np.sign(z) * l1 - z) / np.where(zero, 1, curvature))


ROWS = {}

ROWS["FTRL"] = {
    "defaults": {},
    "lr": dict(lr=0.1),
    "power": dict(lr=0.1, lr_power=-0.3),
    "power zero": dict(lr=0.1, lr_power=0.0),
    "accumulator": dict(lr=0.1, initial_accumulator_value=0.5),
    "accumulator zero": dict(lr=0.1, initial_accumulator_value=0.0),
    "l1": dict(lr=0.1, l1=0.5),
    "l2": dict(lr=0.1, l2=0.5),
    "shrinkage": dict(lr=0.1, l2_shrinkage=0.2),
    "beta": dict(lr=0.1, beta=1.0),
    "all": dict(
        lr=schedule, lr_power=-0.7, initial_accumulator_value=0.2, l1=0.1, l2=0.2, l2_shrinkage=0.1, beta=0.5,
        maximize=True, max_grad_norm=3.0,
    ),
}  # fmt: skip
