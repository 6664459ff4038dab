"""CAME."""

import numpy as np

from families.adafactor import rms
from families.common import schedule


def factored(s, names, x, beta):
    """The means of `x` over rows and columns, averaged under two names, and what they say about each element."""
    for name, axis in zip(names, (-1, -2), strict=True):
        s[name] = beta * s[name] + (1 - beta) * np.mean(x, axis=axis, keepdims=True)
    r, c = (s[name] for name in names)
    return r * c / np.mean(r, axis=-2, keepdims=True)


def came(s, p, g, t, *, lr=2e-4, betas=(0.9, 0.999, 0.9999), eps=(1e-30, 1e-16), clip_threshold=1.0, weight_decay=0.0):
    shapes = {"v": p.shape}
    if p.ndim > 1:
        rows, cols = (*p.shape[:-1], 1), (*p.shape[:-2], 1, p.shape[-1])
        shapes = dict(r=rows, c=cols, rr=rows, rc=cols)
    for name, shape in {"m": p.shape, **shapes}.items():
        s.setdefault(name, np.zeros(shape))
    if p.size == 0:
        return p
    if p.ndim > 1:
        v = factored(s, ("r", "c"), g * g + eps[0], betas[1])
    else:
        v = s["v"] = betas[1] * s["v"] + (1 - betas[1]) * (g * g + eps[0])
    u = g / np.sqrt(v)
    u = u / np.maximum(1, rms(u) / clip_threshold)
    m = s["m"] = betas[0] * s["m"] + (1 - betas[0]) * u
    if p.ndim > 1:
        m = m / np.sqrt(factored(s, ("rr", "rc"), (u - m) ** 2 + eps[1], betas[2]))
    return p * (1 - lr * weight_decay) - lr * m


ROWS = {
    "CAME": {
        "defaults": {},
        "lr": dict(lr=0.01),
        "betas": dict(lr=0.01, betas=(0.8, 0.95, 0.99)),
        "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9, 0.99)),
        "eps": dict(lr=0.01, eps=(0.1, 0.3)),
        "clip_threshold": dict(lr=0.01, clip_threshold=0.5),
        "decay": dict(lr=0.01, weight_decay=0.3),
        "decay, schedule": dict(lr=schedule, weight_decay=0.3),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9, 0.95), eps=(1e-3, 1e-2), clip_threshold=1.5, weight_decay=0.1, maximize=True,
            max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
SCOPES = {"CAME": {"r": "row", "c": "col", "rr": "row", "rc": "col"}}
