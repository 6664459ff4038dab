"""Adamax."""

import numpy as np

from families.common import decayed, schedule


def adamax(
    s, p, g, t, *, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False,
    eps_form="torch",
):  # fmt: skip
    beta1, beta2 = betas
    p, g = decayed(p, g, lr, weight_decay, decoupled_weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    inside, outside = {"torch": (eps, 0), "keras": (0, eps)}[eps_form]
    u = s["u"] = np.maximum(beta2 * s.get("u", 0), np.abs(g) + inside)
    return p - lr / (1 - beta1**t) * m / (u + outside)


ROWS = {
    "Adamax": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas": dict(lr=0.01, betas=(0.8, 0.95)),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
        "eps": dict(lr=0.01, eps=1e-2),
        "keras": dict(lr=0.01, eps=1e-2, eps_form="keras"),
        "decay": dict(lr=0.01, weight_decay=0.1),
        "decoupled": dict(lr=0.01, weight_decay=0.3, decoupled_weight_decay=True),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, decoupled_weight_decay=True, eps_form="keras",
            maximize=True, max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
