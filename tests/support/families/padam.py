"""PAdam."""

import math

import numpy as np

from families.common import l2, schedule


def padam(
    s, p, g, t, *, lr=0.1, betas=(0.9, 0.999), partial=0.25, eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False,
    amsgrad=False,
):  # fmt: skip
    beta1, beta2 = betas
    if decoupled_weight_decay:
        p = p * (1 - lr * weight_decay)
    else:
        g = l2(g, p, weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    if amsgrad:
        v = s["vmax"] = np.maximum(s.get("vmax", 0), v)
    return p - lr * math.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + eps) ** (2 * partial)


ROWS = {}

ROWS["PAdam"] = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.95)),
    "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
    "partial": dict(lr=0.01, partial=0.125),
    "partial, any": dict(lr=0.01, partial=0.3),
    "partial, Adam's": dict(lr=0.01, partial=0.5),
    "eps": dict(lr=0.01, eps=1e-2),
    "decay": dict(lr=0.01, weight_decay=0.1),
    "decoupled": dict(lr=0.01, weight_decay=0.3, decoupled_weight_decay=True),
    "amsgrad": dict(lr=0.01, amsgrad=True, betas=(0.9, 0.9)),
    "amsgrad, partial": dict(lr=0.01, amsgrad=True, betas=(0.9, 0.9), partial=0.4),
    "all": dict(
        lr=schedule, betas=(0.85, 0.9), partial=0.2, eps=1e-3, weight_decay=0.1, decoupled_weight_decay=True,
        amsgrad=True, maximize=True, max_grad_norm=3.0,
    ),
}  # fmt: skip

INT8 = {"PAdam"}
