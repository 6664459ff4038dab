"""DoG and LDoG."""

import numpy as np

from families.common import l2, schedule


def dog(s, p, g, t, *, lr=1.0, reps_rel=1e-6, eps=1e-8, init_eta=None, weight_decay=0.0, layerwise=False):
    """Over all parameters as one vector, or over one array if `layerwise`."""
    for name, start in dict(x0=p, rbar=0.0, total=0.0).items():
        s.setdefault(name, start)
    g = l2(g, p, weight_decay)
    if p.size == 0:
        return p
    if s["total"] == 0.0:
        s["rbar"], s["total"] = reps_rel * (1 + np.linalg.norm(p)), np.sum(g * g) + eps
        eta = lr * s["rbar"] / np.sqrt(s["total"]) if init_eta is None else init_eta
    else:
        s["rbar"], s["total"] = np.maximum(s["rbar"], np.linalg.norm(p - s["x0"])), s["total"] + np.sum(g * g)
        eta = lr * s["rbar"] / np.sqrt(s["total"])
    return p - eta * g


# Options with which parameters move a visible distance within a few steps.
DOG = dict(reps_rel=0.1)
ROWS = {
    "DoG": {"moving": DOG, "defaults": {}}
    | {
        row: DOG | kwargs
        for row, kwargs in {
            "lr": dict(lr=0.5),
            "reps_rel": dict(reps_rel=0.02),
            "eps": dict(eps=2.0),
            "init_eta": dict(init_eta=0.05),
            "decay": dict(weight_decay=0.3),
            "decay, schedule": dict(lr=schedule, reps_rel=2.0, weight_decay=0.3),
            "layerwise": dict(layerwise=True),
            "layerwise, init_eta": dict(layerwise=True, init_eta=0.05),
            "layerwise, decay": dict(layerwise=True, weight_decay=0.3, lr=0.5),
            "all": dict(
                lr=schedule, reps_rel=2.0, eps=1e-3, init_eta=0.03, weight_decay=0.1, maximize=True, max_grad_norm=3.0
            ),
        }.items()
    }
}  # fmt: skip
JOINT = {"DoG"}
MOVING = {"DoG": DOG}
SCOPES = {"DoG": {"rbar": "array", "total": "array"}}
