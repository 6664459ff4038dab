"""Sophia-G and Sophia-H; `Reference.update_hessian` averages the diagonal."""

import numpy as np

from families.common import schedule


def sophiag(s, p, g, t, *, lr=1e-4, betas=(0.965, 0.99), rho=0.04, bs=1.0, eps=1e-15, weight_decay=0.1):
    h = s.setdefault("h", np.zeros_like(p))
    m = s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    return p * (1 - lr * weight_decay) - lr * np.sign(m) * np.minimum(np.abs(m) / (rho * bs * h + eps), 1)


def sophiah(s, p, g, t, *, lr=0.06, betas=(0.96, 0.99), clip=0.01, eps=1e-12, weight_decay=0.0):
    h = s.setdefault("h", np.zeros_like(p))
    m = s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    return p * (1 - lr * weight_decay) - lr * np.clip(m / np.maximum(h, eps), -clip, clip)


# The diagonal stays 0 in these; an eps of its size shows the quotient.
ROWS = {
    "SophiaG": {
        "defaults": {},
        "lr, betas": dict(lr=0.01, betas=(0.8, 0.95)),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9), eps=2.0),
        "eps": dict(lr=0.01, eps=2.0),
        "rho, bs": dict(lr=0.01, rho=0.5, bs=4.0),
        "decay": dict(lr=0.01, weight_decay=0.3),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), rho=0.1, bs=2.0, eps=3.0, weight_decay=0.2, maximize=True, max_grad_norm=3.0
        ),
    },
    "SophiaH": {
        "defaults": {},
        "lr, betas": dict(lr=0.01, betas=(0.8, 0.95)),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9), eps=2.0, clip=0.5),
        "eps, clip": dict(lr=0.01, eps=2.0, clip=0.3),
        "decay": dict(lr=0.01, weight_decay=0.3),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), clip=0.4, eps=3.0, weight_decay=0.2, maximize=True, max_grad_norm=3.0
        ),
    },
}  # fmt: skip
SIGNS = set(ROWS)
