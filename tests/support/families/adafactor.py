"""Adafactor."""

import math

import numpy as np

from families.common import schedule


def rms(a):
    return np.sqrt(np.mean(a * a))


def adafactor(
    s, p, g, t, *, lr=1e-2, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0, relative_step=False,
    machine_eps=2.0**-52,
):  # fmt: skip
    """PyTorch's form; `relative_step` is the rate of the paper's authors. An array without elements does not change."""
    eps1, eps2 = machine_eps if eps[0] is None else eps[0], eps[1]
    beta2 = 1 - t**beta2_decay  # 0 at the first step: there is no bias to correct
    rho = min(1e-2 if relative_step else lr, 1 / math.sqrt(t))
    shapes = {"v": p.shape}
    if p.ndim > 1:  # rows and columns of the last two axes
        shapes = {"r": (*p.shape[:-1], 1), "c": (*p.shape[:-2], 1, p.shape[-1])}
    for name, shape in shapes.items():
        s.setdefault(name, np.zeros(shape))
    if p.size == 0:
        return p
    rate = np.maximum(eps2, rms(p)) * rho
    if p.ndim > 1:
        r = s["r"] = beta2 * s["r"] + (1 - beta2) * np.mean(g * g, axis=-1, keepdims=True)
        c = s["c"] = beta2 * s["c"] + (1 - beta2) * np.mean(g * g, axis=-2, keepdims=True)
        v = r * c / np.maximum(np.mean(r, axis=-2, keepdims=True), eps1)
    else:
        v = s["v"] = beta2 * s["v"] + (1 - beta2) * g * g
    u = g / np.sqrt(np.maximum(v, eps1 * eps1))
    return p * (1 - lr * weight_decay) - rate * u / np.maximum(1, rms(u) / d)


ROWS = {}

ROWS["Adafactor"] = {
    "defaults": {},
    "lr": dict(lr=0.1),
    "beta2_decay": dict(lr=0.1, beta2_decay=-0.3),
    "eps": dict(lr=0.1, eps=(0.5, 0.1)),
    "eps of the dtype": dict(lr=0.1, eps=(None, 2.0)),
    "d": dict(lr=0.1, d=2.0),
    "decay": dict(lr=0.1, weight_decay=0.3),
    "decay, schedule": dict(lr=schedule, weight_decay=0.3),
    "rate above 1/sqrt(t)": dict(lr=0.4),
    "relative step": dict(relative_step=True),
    "relative step, decay": dict(lr=0.1, relative_step=True, weight_decay=0.3),
    "all": dict(
        lr=schedule, beta2_decay=-0.5, eps=(1e-3, 1e-2), d=1.5, weight_decay=0.1, relative_step=True, maximize=True,
        max_grad_norm=3.0,
    ),
}  # fmt: skip

SCOPES = {"Adafactor": {"r": "row", "c": "col"}}
