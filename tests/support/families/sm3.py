"""SM3."""

import numpy as np

from families.common import schedule


def sm3(s, p, g, t, *, lr=0.1, momentum=0.0, beta=0.0, eps=1e-30):
    """The last two axes are matrices; with fewer axes each element has its own number."""
    names = {"v": p.shape}
    if p.ndim > 1:
        names = {"r": (*p.shape[:-1], 1), "c": (*p.shape[:-2], 1, p.shape[-1])}
    for name, shape in names.items():
        s.setdefault(name, np.zeros(shape))
    if momentum:
        s.setdefault("m", np.zeros(p.shape))
    if p.size == 0:
        return p
    nu = np.minimum(s["r"], s["c"]) if p.ndim > 1 else s["v"]
    nu = beta * nu + (1 - beta) * g * g if beta else nu + g * g
    for name, axes in {"r": -1, "c": -2, "v": ()}.items():
        if name in names:
            new = np.max(nu, axis=axes, keepdims=True) if p.ndim > 1 else nu
            s[name] = np.maximum(s[name], new) if beta else new
    u = np.divide(g, np.sqrt(nu + eps), out=np.zeros_like(g), where=nu != 0)
    if momentum:
        u = s["m"] = momentum * s["m"] + (1 - momentum) * u
    return p - lr * u


ROWS = {
    "SM3": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "momentum": dict(momentum=0.9),
        "beta": dict(beta=0.9),
        "eps": dict(eps=0.1),
        "momentum, beta": dict(momentum=0.5, beta=0.5),
        "momentum, schedule": dict(lr=schedule, momentum=0.8),
        "all": dict(lr=schedule, momentum=0.7, beta=0.8, eps=1e-3, maximize=True, max_grad_norm=3.0),
    }
}
SCOPES = {"SM3": {"r": "row", "c": "col"}}
STATEFUL = {"SM3": dict(momentum=0.9)}
