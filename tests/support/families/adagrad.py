"""Adagrad."""

import numpy as np

from families.common import l2, schedule


def adagrad(
    state, p, g, t, *, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10,
    eps_inside_sqrt=False, row_wise=False,
):  # fmt: skip
    g = l2(g, p, weight_decay)
    if row_wise and p.size == 0:
        state["s"] = np.full(s_shape(p.shape, row_wise), initial_accumulator_value)
        return p
    squares = np.mean(g * g, axis=tuple(range(1, p.ndim)), keepdims=True) if row_wise and p.ndim > 1 else g * g
    s = state["s"] = state.get("s", initial_accumulator_value) + squares
    root = np.sqrt(s + eps) if eps_inside_sqrt else np.sqrt(s) + eps
    return p - lr / (1 + (t - 1) * lr_decay) * g / root


def s_shape(shape, row_wise=False, **_):
    """The shape of the sums for an array of this shape."""
    return (*shape[:1], *(1 for _ in shape[1:])) if row_wise else shape


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
    "row-wise": dict(lr=0.1, row_wise=True),
    "row-wise, decay": dict(lr=0.1, row_wise=True, weight_decay=0.1, initial_accumulator_value=0.5, eps=1e-2),
    "row-wise, eps inside": dict(
        lr=schedule, row_wise=True, lr_decay=0.05, eps=1e-2, eps_inside_sqrt=True, maximize=True, max_grad_norm=3.0
    ),
    "all": dict(
        lr=schedule, lr_decay=0.05, weight_decay=0.1, initial_accumulator_value=0.2, eps=1e-3, eps_inside_sqrt=True,
        maximize=True, max_grad_norm=3.0,
    ),
}  # fmt: skip
SCOPES = {"Adagrad": {"s": s_shape}}
