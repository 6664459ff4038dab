"""Prodigy."""

import math

import numpy as np

from families.common import l2, schedule


def prodigy(
    s, p, g, t, *, lr=1.0, betas=(0.9, 0.999), beta3=None, eps=1e-8, weight_decay=0.0, decoupled_weight_decay=True,
    use_bias_correction=False, safeguard_warmup=False, d0=1e-6, d_coef=1.0, growth_rate=math.inf, frozen=None,
):  # fmt: skip
    """`frozen` is true for elements whose group has a learning rate of 0: for them nothing happens."""
    beta1, beta2 = betas
    beta3 = math.sqrt(beta2) if beta3 is None else beta3
    zero = np.zeros_like(p)
    for name, start in dict(m=zero, v=zero, s=zero, p0=p, d=d0, d_max=d0, num=0.0).items():
        s.setdefault(name, start)
    live = np.full(p.shape, lr != 0) if frozen is None else ~frozen
    d = s["d"]
    dlr = d * lr * (math.sqrt(1 - beta2**t) / (1 - beta1**t) if use_bias_correction else 1)
    if not decoupled_weight_decay:
        g = l2(g, p, weight_decay)
    num = beta3 * s["num"] + d / d0 * dlr * np.sum((g * (s["p0"] - p))[live])
    s["m"] = np.where(live, beta1 * s["m"] + (1 - beta1) * d * g, s["m"])
    s["v"] = np.where(live, beta2 * s["v"] + (1 - beta2) * d * d * g * g, s["v"])
    s["s"] = np.where(live, beta3 * s["s"] + d / d0 * (d if safeguard_warmup else dlr) * g, s["s"])
    den = np.sum(np.abs(s["s"][live]))
    if den == 0:
        return p
    s["num"] = num
    estimate = d_coef * num / den
    d = max(d, estimate) if d == d0 else d
    s["d_max"] = max(s["d_max"], estimate)  # a NaN is no progress, and changes neither
    d = s["d"] = min(s["d_max"], d * growth_rate)
    if decoupled_weight_decay:
        p = np.where(live, p * (1 - weight_decay * dlr), p)
    m = s["m"] if beta1 else d * g
    return np.where(live, p - dlr * m / (np.sqrt(s["v"]) + d * eps), p)


ROWS = {}

# Options with which the estimate of the distance grows, and so is seen, within a few steps of random gradients.
PRODIGY = dict(d0=0.01, beta3=0.2, d_coef=4.0)
ROWS["Prodigy"] = {"growing": PRODIGY, "defaults": {}, "d0": dict(d0=0.01)} | {
    row: PRODIGY | kwargs
    for row, kwargs in {
        "lr": dict(lr=0.5),
        "betas": dict(betas=(0.8, 0.95)),
        "beta1 zero": dict(betas=(0.0, 0.9)),
        "beta3": dict(beta3=0.5),
        "beta3 zero": dict(beta3=0.0),
        "beta3 of beta2": dict(beta3=None, betas=(0.9, 0.25)),
        "eps": dict(eps=1e-2),
        "decay": dict(weight_decay=0.3),
        "L2 decay": dict(weight_decay=0.3, decoupled_weight_decay=False),
        "corrected": dict(use_bias_correction=True),
        "corrected, decay, schedule": dict(lr=schedule, use_bias_correction=True, weight_decay=0.3, d_coef=400.0),
        "safeguard": dict(lr=0.5, safeguard_warmup=True, d_coef=8.0),
        "safeguard, schedule": dict(lr=schedule, safeguard_warmup=True, d_coef=2000.0),
        "d_coef": dict(d_coef=8.0),
        "growth_rate": dict(growth_rate=1.05),
        "decay, schedule": dict(lr=schedule, weight_decay=0.3, d_coef=90.0),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), beta3=0.1, eps=1e-3, weight_decay=0.1, decoupled_weight_decay=False,
            use_bias_correction=True, safeguard_warmup=True, d0=0.02, d_coef=2000.0, growth_rate=1.5, maximize=True,
            max_grad_norm=3.0,
        ),
    }.items()
}  # fmt: skip

JOINT = {"Prodigy"}
MOVING = {"Prodigy": PRODIGY}
