"""Adagrad."""

import numpy as np

from families.common import l2, schedule


def adagrad(
    state, p, g, t, *, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10,
    eps_inside_sqrt=False,
):  # fmt: skip
    g = l2(g, p, weight_decay)
    s = state["s"] = state.get("s", initial_accumulator_value) + g * g
    root = np.sqrt(s + eps) if eps_inside_sqrt else np.sqrt(s) + eps
    return p - lr / (1 + (t - 1) * lr_decay) * g / root


ROWS = {}

ROWS["Adagrad"] = {
    "defaults": {},
    "lr": dict(lr=0.1),
    "lr_decay": dict(lr=0.1, lr_decay=0.1),
    "decay": dict(lr=0.1, weight_decay=0.1),
    "accumulator": dict(lr=0.1, initial_accumulator_value=0.5),
    "eps": dict(lr=0.1, eps=1e-2),
    "eps inside": dict(lr=0.1, eps=1e-2, eps_inside_sqrt=True),
    "keras": dict(lr=0.1, initial_accumulator_value=0.1, eps=1e-7, eps_inside_sqrt=True),
    "all": dict(
        lr=schedule, lr_decay=0.05, weight_decay=0.1, initial_accumulator_value=0.2, eps=1e-3, eps_inside_sqrt=True,
        maximize=True, max_grad_norm=3.0,
    ),
}  # fmt: skip
