"""AdaBelief."""

import math

import numpy as np

from families.common import decayed, schedule


def adabelief(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-16, weight_decay=0.0, decoupled_weight_decay=True, amsgrad=False,
    rectify=False, threshold=5.0, unrectified="sgd",
):  # fmt: skip
    beta1, beta2 = betas
    bc1, bc2 = 1 - beta1**t, 1 - beta2**t
    inf = 2 / (1 - beta2) - 1
    rho = inf - 2 * t * beta2**t / bc2
    short = rectify and rho < threshold
    still = short and unrectified == "frozen"
    p, g = decayed(p, g, lr, 0.0 if still and decoupled_weight_decay else weight_decay, decoupled_weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    square = s["s"] = beta2 * s.get("s", 0) + (1 - beta2) * (g - m) ** 2 + eps
    if amsgrad:
        square = s["smax"] = np.maximum(s.get("smax", 0), square)
    if not rectify:
        return p - lr / bc1 * m / (np.sqrt(square) / math.sqrt(bc2) + eps)
    if short:
        return p if still else p - lr / bc1 * m
    r = math.sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho))
    return p - lr / bc1 * r * math.sqrt(bc2) * m / (np.sqrt(square) + eps)


RECTIFIED = dict(lr=0.01, rectify=True, eps=1e-8)
ROWS = {
    "AdaBelief": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas": dict(lr=0.01, betas=(0.8, 0.95)),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9), eps=1e-8),
        "eps": dict(lr=0.01, eps=1e-2),
        "decay": dict(lr=0.01, weight_decay=0.3),
        "L2 decay": dict(lr=0.01, weight_decay=0.1, decoupled_weight_decay=False),
        "amsgrad": dict(lr=0.01, amsgrad=True, betas=(0.9, 0.9)),
        "rectified": RECTIFIED,
        "rectified, amsgrad": dict(RECTIFIED, amsgrad=True, betas=(0.9, 0.9)),
        "never rectified": dict(RECTIFIED, betas=(0.5, 0.5)),
        "threshold": dict(RECTIFIED, threshold=4.0),
        "frozen, decay": dict(RECTIFIED, unrectified="frozen", weight_decay=0.3),
        "frozen, L2 decay": dict(RECTIFIED, unrectified="frozen", weight_decay=0.1, decoupled_weight_decay=False),
        "all": dict(
            lr=schedule, betas=(0.85, 0.99), eps=1e-3, weight_decay=0.1, decoupled_weight_decay=False, amsgrad=True,
            rectify=True, threshold=6.5, unrectified="frozen", maximize=True, max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
INT8 = {"AdaBelief"}
