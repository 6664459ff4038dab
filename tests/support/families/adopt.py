"""ADOPT."""

import numpy as np

from families.common import cautioned, decayed, schedule


def adopt(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.9999), eps=1e-6, weight_decay=0.0, decoupled_weight_decay=False,
    clip_exp=0.25, cautious=None,
):  # fmt: skip
    beta1, beta2 = betas
    if t == 1:
        if not decoupled_weight_decay:
            _, g = decayed(p, g, lr, weight_decay, False)
        s["m"], s["v"] = np.zeros_like(g), g * g
        return p
    p, g = decayed(p, g, lr, weight_decay, decoupled_weight_decay)
    n = g / np.maximum(np.sqrt(s["v"]), eps)
    if clip_exp is not None:
        n = np.clip(n, -((t - 1) ** clip_exp), (t - 1) ** clip_exp)
    m = s["m"] = beta1 * s["m"] + (1 - beta1) * n
    s["v"] = beta2 * s["v"] + (1 - beta2) * g * g
    return p - lr * cautioned(m, g, cautious)


ROWS = {
    "ADOPT": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas, eps": dict(lr=0.01, betas=(0.8, 0.95), eps=1e-3),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
        "timm": dict(lr=0.01, clip_exp=0.333),
        "clipped by 1": dict(lr=0.01, clip_exp=0.0),
        "no clipping": dict(lr=0.01, clip_exp=None),
        "decay": dict(lr=0.01, weight_decay=0.1),
        "decoupled": dict(lr=0.01, weight_decay=0.3, decoupled_weight_decay=True),
        "cautious": dict(lr=0.01, cautious="mean", weight_decay=0.1),
        "cautious, plus one": dict(lr=schedule, cautious="plus_one", weight_decay=0.3, decoupled_weight_decay=True),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), eps=1e-2, weight_decay=0.1, decoupled_weight_decay=True, clip_exp=0.5,
            maximize=True, max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
INT8 = {"ADOPT"}
