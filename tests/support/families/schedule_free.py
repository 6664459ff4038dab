"""Schedule-free SGD, AdamW and RAdam."""

import math

import numpy as np

from families.common import schedule


def moved(s, y, q, t, rate, beta1, r, weight_lr_power):
    """`y` after a step of z along `q`; x, the average, is computed from y and z."""
    z = s.setdefault("z", y)
    rate = rate if y.size else 0.0  # of an array without elements nothing is counted
    top = s["lr_max"] = np.maximum(s.get("lr_max", 0.0), rate)
    weight = t**r * top**weight_lr_power * bool(y.size)
    total = s["weight_sum"] = s.get("weight_sum", np.float64(0)) + weight
    c = weight / total if total else 0.0
    x = np.where(y == z, y, (y - (1 - beta1) * z) / beta1)
    z = s["z"] = z - rate * q
    if c == 0:
        return beta1 * x + (1 - beta1) * z
    x = (1 - c) * x + c * z if c < 1 else z
    return np.where(x == z, z, beta1 * x + (1 - beta1) * z)


def schedulefreesgd(
    s, p, g, t, *, lr=1.0, momentum=0.9, weight_decay=0.0, warmup_steps=0, r=0.0, weight_lr_power=2.0
):  # fmt: skip
    rate = lr * min(1.0, t / warmup_steps) if warmup_steps else lr
    q = g + weight_decay * p if weight_decay else g
    return moved(s, p, q, t, rate, momentum, r, weight_lr_power)


def schedulefreeadamw(
    s, p, g, t, *, lr=2.5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, warmup_steps=0, r=0.0,
    weight_lr_power=2.0,
):  # fmt: skip
    beta1, beta2 = betas
    rate = lr * min(1.0, t / warmup_steps) if warmup_steps else lr
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    q = g / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)
    q = q + weight_decay * p if weight_decay else q
    return moved(s, p, q, t, rate, beta1, r, weight_lr_power)


def schedulefreeradam(
    s, p, g, t, *, lr=2.5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, r=0.0, weight_lr_power=2.0,
    silent_sgd_phase=True,
):  # fmt: skip
    beta1, beta2 = betas
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    inf = 2 / (1 - beta2) - 1
    rho = inf - 2 * t * beta2**t / (1 - beta2**t)
    q = g
    if rho > 4:
        rate = lr * math.sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho))
        q = g / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)
    else:
        rate = 0.0 if silent_sgd_phase else lr
    q = q + weight_decay * p if weight_decay else q
    return moved(s, p, q, t, rate, beta1, r, weight_lr_power)


ADAM = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.95)),
    "eps": dict(lr=0.01, eps=1e-2),
    "decay": dict(lr=0.01, weight_decay=0.3),
    "weights": dict(lr=0.01, r=1.5, weight_lr_power=1.0),
}
ROWS = {
    "ScheduleFreeSGD": {
        "defaults": {},
        "lr": dict(lr=0.1),
        "momentum": dict(lr=0.1, momentum=0.5),
        "decay": dict(lr=0.1, weight_decay=0.1),
        "warm-up": dict(lr=0.1, warmup_steps=3),
        "weights": dict(lr=0.1, warmup_steps=3, r=1.5, weight_lr_power=1.0),
        "equal weights": dict(lr=0.1, warmup_steps=3, weight_lr_power=0.0),
        "all": dict(
            lr=schedule, momentum=0.8, weight_decay=0.1, warmup_steps=4, r=0.5, weight_lr_power=1.0, maximize=True,
            max_grad_norm=3.0,
        ),
    },
    "ScheduleFreeAdamW": ADAM | {
        "warm-up": dict(lr=0.01, warmup_steps=3),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, warmup_steps=4, r=0.5, weight_lr_power=1.0,
            maximize=True, max_grad_norm=3.0,
        ),
    },
    "ScheduleFreeRAdam": ADAM | {
        "not silent": dict(lr=0.01, silent_sgd_phase=False),
        "never rectified": dict(lr=0.01, betas=(0.5, 0.5), silent_sgd_phase=False),
        "all": dict(
            lr=schedule, betas=(0.85, 0.99), eps=1e-3, weight_decay=0.1, r=0.5, weight_lr_power=1.0,
            silent_sgd_phase=False, maximize=True, max_grad_norm=3.0,
        ),
    },
}  # fmt: skip
SCOPES = {name: {"lr_max": "array", "weight_sum": "array"} for name in ROWS}
MOVING = {"ScheduleFreeRAdam": dict(silent_sgd_phase=False)}
