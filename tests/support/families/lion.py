"""Lion."""

import numpy as np

from families.common import cautioned, schedule


def lion(s, p, g, t, *, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, cautious=None):
    beta1, beta2 = betas
    m = s.get("m", 0)
    s["m"] = beta2 * m + (1 - beta2) * g
    u = np.sign(beta1 * m + (1 - beta1) * g)
    return p * (1 - lr * weight_decay) - lr * cautioned(u, g, cautious)


ROWS = {}

ROWS["Lion"] = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.95)),
    "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
    "decay": dict(lr=0.01, weight_decay=0.3),
    "decay, schedule": dict(lr=schedule, weight_decay=0.3),
    "cautious": dict(lr=0.01, cautious="mean"),
    "cautious, plus one, decay": dict(lr=0.01, cautious="plus_one", weight_decay=0.3),
    "all": dict(lr=schedule, betas=(0.85, 0.9), weight_decay=0.1, maximize=True, max_grad_norm=3.0),
}

INT8 = {"Lion"}
SIGNS = {"Lion"}
