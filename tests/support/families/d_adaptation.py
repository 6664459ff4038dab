"""D-Adaptation of Adam and of SGD."""

import math

import numpy as np

from families.common import l2, schedule


def dadaptadam(
    s, p, g, t, *, lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False,
    use_bias_correction=False, d0=1e-6, growth_rate=math.inf, frozen=None,
):  # fmt: skip
    """`frozen` is true for elements whose group has a learning rate of 0: for them nothing happens."""
    beta1, beta2 = betas
    q = math.sqrt(beta2)
    zero = np.zeros_like(p)
    for name, start in dict(m=zero, v=zero, s=zero, d=d0, num=0.0).items():
        s.setdefault(name, start)
    live = np.full(p.shape, lr != 0) if frozen is None else ~frozen
    d = s["d"]
    dlr = d * lr * (math.sqrt(1 - beta2**t) / (1 - beta1**t) if use_bias_correction else 1)
    if not decoupled_weight_decay:
        g = l2(g, p, weight_decay)
    num = q * s["num"] + (1 - q) * dlr * np.sum((g * s["s"] / (np.sqrt(s["v"]) + max(eps, 1e-150)))[live])
    s["m"] = np.where(live, beta1 * s["m"] + dlr * (1 - beta1) * g, s["m"])
    s["v"] = np.where(live, beta2 * s["v"] + (1 - beta2) * g * g, s["v"])
    s["s"] = np.where(live, q * s["s"] + dlr * (1 - q) * g, s["s"])
    size = np.sum(np.abs(s["s"][live]))
    if size == 0:
        return p
    s["num"] = num
    s["d"] = max(d, min(num / ((1 - q) * size), d * growth_rate))  # a NaN is no progress
    if decoupled_weight_decay:
        p = np.where(live, p * (1 - weight_decay * dlr), p)
    return np.where(live, p - s["m"] / (np.sqrt(s["v"]) + max(eps, 1e-150)), p)


def dadaptsgd(
    s, p, g, t, *, lr=1.0, momentum=0.0, weight_decay=0.0, d0=1e-6, growth_rate=math.inf, frozen=None,
):  # fmt: skip
    for name, start in dict(s=np.zeros_like(p), x0=p, d=d0, num=0.0, g0=0.0).items():
        s.setdefault(name, start)
    live = np.full(p.shape, lr != 0) if frozen is None else ~frozen
    if s["g0"] == 0:
        s["g0"] = np.linalg.norm(g[live])
    if s["g0"] == 0 or lr == 0:
        return p
    dlr = s["d"] * lr / s["g0"]
    g = l2(g, p, weight_decay)
    s["num"] = s["num"] + dlr * np.sum((g * s["s"])[live])
    s["s"] = np.where(live, s["s"] + dlr * g, s["s"])
    size = np.linalg.norm(s["s"][live])
    if size > 0:
        s["d"] = max(s["d"], min(2 * s["num"] / size, s["d"] * growth_rate))
    return np.where(live, momentum * p + (1 - momentum) * (s["x0"] - s["s"]), p)


# Options with which the estimate of the distance grows, and so is seen, within a few steps of random gradients.
ADAM = dict(d0=0.01, betas=(0.9, 0.5))
SGD = dict(d0=0.5)
ROWS = {
    "DAdaptAdam": {"growing": ADAM, "defaults": {}, "d0": dict(d0=0.01)}
    | {
        row: ADAM | kwargs
        for row, kwargs in {
            "lr": dict(lr=0.5),
            "betas": dict(betas=(0.8, 0.3)),
            "beta1 zero": dict(betas=(0.0, 0.5)),
            "eps": dict(eps=1e-2),
            "decay": dict(weight_decay=0.3),
            "decoupled decay": dict(weight_decay=0.3, decoupled_weight_decay=True),
            "corrected": dict(use_bias_correction=True),
            "corrected, decoupled decay, schedule": dict(
                lr=schedule, d0=0.2, use_bias_correction=True, weight_decay=0.3, decoupled_weight_decay=True
            ),
            "growth_rate": dict(growth_rate=1.05),
            "decay, schedule": dict(lr=schedule, d0=0.2, weight_decay=0.3),
            "all": dict(
                lr=schedule, betas=(0.85, 0.4), eps=1e-3, weight_decay=0.1, decoupled_weight_decay=True,
                use_bias_correction=True, d0=0.3, growth_rate=1.5, maximize=True, max_grad_norm=3.0,
            ),
        }.items()
    },
    "DAdaptSGD": {"growing": SGD, "defaults": {}}
    | {
        row: SGD | kwargs
        for row, kwargs in {
            "lr": dict(lr=0.5),
            "momentum": dict(momentum=0.9),
            "momentum, decay": dict(momentum=0.5, weight_decay=0.3),
            "d0": dict(d0=0.1),
            "decay": dict(weight_decay=0.3),
            "decay, schedule": dict(lr=schedule, d0=5.0, weight_decay=0.3),
            "growth_rate": dict(growth_rate=1.05),
            "all": dict(
                lr=schedule, momentum=0.8, weight_decay=0.1, d0=3.0, growth_rate=1.5, maximize=True, max_grad_norm=3.0
            ),
        }.items()
    },
}  # fmt: skip
JOINT = {"DAdaptAdam", "DAdaptSGD"}
MOVING = {"DAdaptAdam": ADAM, "DAdaptSGD": SGD}
