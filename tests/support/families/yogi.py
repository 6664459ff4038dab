"""Yogi."""

import math

import numpy as np

from families.common import decayed, schedule


def yogi(
    s, p, g, t, *, lr=1e-2, betas=(0.9, 0.999), eps=1e-3, initial_accumulator_value=1e-6, initial_momentum=None,
    weight_decay=0.0, decoupled_weight_decay=False,
):  # fmt: skip
    beta1, beta2 = betas
    p, g = decayed(p, g, lr, weight_decay, decoupled_weight_decay)
    start = initial_accumulator_value if initial_momentum is None else initial_momentum
    m = s["m"] = beta1 * s.get("m", start) + (1 - beta1) * g
    v = s.get("v", initial_accumulator_value)
    v = s["v"] = v - (1 - beta2) * np.sign(v - g * g) * g * g
    return p - lr / (1 - beta1**t) * m / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)


ROWS = {
    "Yogi": {
        "defaults": {},
        "lr": dict(lr=0.1),
        "betas, eps": dict(lr=0.1, betas=(0.8, 0.95), eps=1e-8),
        "beta1 zero": dict(betas=(0.0, 0.9)),
        "accumulator": dict(initial_accumulator_value=0.5),
        "paper": dict(initial_momentum=0.0),
        "momentum": dict(initial_accumulator_value=0.1, initial_momentum=0.2),
        "decay": dict(weight_decay=0.1),
        "decoupled": dict(weight_decay=0.3, decoupled_weight_decay=True),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), eps=1e-2, initial_accumulator_value=0.2, initial_momentum=0.1,
            weight_decay=0.1, decoupled_weight_decay=True, maximize=True, max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
INT8 = {"Yogi"}
