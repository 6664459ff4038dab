"""Adafactor."""

import math

import numpy as np

from families.common import schedule


def rms(a):
    return np.sqrt(np.mean(a * a))


def adafactor(
    s, p, g, t, *, lr=1e-2, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0, relative_step=False,
    machine_eps=2.0**-52,
):  # fmt: skip
    """PyTorch's form; `relative_step` is the rate of the paper's authors. An array without elements does not change."""
    eps1, eps2 = machine_eps if eps[0] is None else eps[0], eps[1]
    beta2 = 1 - t**beta2_decay  # 0 at the first step: there is no bias to correct
    rho = min(1e-2 if relative_step else lr, 1 / math.sqrt(t))
    shapes = {"v": p.shape}
    if p.ndim > 1:  # rows and columns of the last two axes
        shapes = {"r": (*p.shape[:-1], 1), "c": (*p.shape[:-2], 1, p.shape[-1])}
    for name, shape in shapes.items():
        s.setdefault(name, np.zeros(shape))
    if p.size == 0:
        return p
    rate = np.maximum(eps2, rms(p)) * rho
    if p.ndim > 1:
        r = s["r"] = beta2 * s["r"] + (1 - beta2) * np.mean(g * g, axis=-1, keepdims=True)
        c = s["c"] = beta2 * s["c"] + (1 - beta2) * np.mean(g * g, axis=-2, keepdims=True)
        v = r * c / np.maximum(np.mean(r, axis=-2, keepdims=True), eps1)
    else:
        v = s["v"] = beta2 * s["v"] + (1 - beta2) * g * g
    u = g / np.sqrt(np.maximum(v, eps1 * eps1))
    return p * (1 - lr * weight_decay) - rate * u / np.maximum(1, rms(u) / d)


def adafactorhf(
    s, p, g, t, *, lr=None, eps=(1e-30, 1e-3), clip_threshold=1.0, decay_rate=-0.8, beta1=None, weight_decay=0.0,
    scale_parameter=True, relative_step=None, warmup_init=False,
):  # fmt: skip
    """Hugging Face's form. An array without elements does not change."""
    beta2 = 1 - t**decay_rate
    rate = min(1e-6 * t if warmup_init else 1e-2, 1 / math.sqrt(t)) if lr is None else lr
    shapes = {"v": p.shape}
    if p.ndim > 1:
        shapes = {"r": (*p.shape[:-1], 1), "c": (*p.shape[:-2], 1, p.shape[-1])}
    for name, shape in shapes.items():
        s.setdefault(name, np.zeros(shape))
    if beta1 is not None:
        s.setdefault("m", np.zeros_like(p))
    if p.size == 0:
        return p
    if scale_parameter:
        rate = rate * np.maximum(eps[1], rms(p))
    q = g * g + eps[0]
    if p.ndim > 1:
        r = s["r"] = beta2 * s["r"] + (1 - beta2) * np.mean(q, axis=-1, keepdims=True)
        c = s["c"] = beta2 * s["c"] + (1 - beta2) * np.mean(q, axis=-2, keepdims=True)
        v = r * c / np.mean(r, axis=-2, keepdims=True)
    else:
        v = s["v"] = beta2 * s["v"] + (1 - beta2) * q
    u = g / np.sqrt(v)
    u = u / np.maximum(1, rms(u) / clip_threshold) * rate
    if beta1 is not None:
        u = s["m"] = beta1 * s["m"] + (1 - beta1) * u
    return p * (1 - rate * weight_decay) - u


ROWS = {}

ROWS["AdafactorHF"] = {
    "defaults": {},
    "warmup_init": dict(warmup_init=True),
    "unscaled": dict(scale_parameter=False),
    "relative step": dict(relative_step=True, weight_decay=0.3),
    "lr": dict(lr=0.1, relative_step=False),
    "lr, unscaled": dict(lr=0.1, scale_parameter=False),
    "eps": dict(lr=0.1, eps=(0.5, 2.0)),
    "clip_threshold": dict(lr=0.1, clip_threshold=0.5),
    "decay_rate": dict(lr=0.1, decay_rate=-0.3),
    "beta1": dict(lr=0.1, beta1=0.9),
    "beta1 zero": dict(beta1=0.0),
    "decay": dict(lr=0.1, weight_decay=0.3),
    "beta1, decay, schedule": dict(lr=schedule, beta1=0.8, weight_decay=0.3),
    "all": dict(
        lr=schedule, eps=(1e-3, 1e-2), clip_threshold=1.5, decay_rate=-0.5, beta1=0.85, weight_decay=0.1,
        scale_parameter=False, maximize=True, max_grad_norm=3.0,
    ),
}  # fmt: skip

ROWS["Adafactor"] = {
    "defaults": {},
    "lr": dict(lr=0.1),
    "beta2_decay": dict(lr=0.1, beta2_decay=-0.3),
    "eps": dict(lr=0.1, eps=(0.5, 0.1)),
    "eps of the dtype": dict(lr=0.1, eps=(None, 2.0)),
    "d": dict(lr=0.1, d=2.0),
    "decay": dict(lr=0.1, weight_decay=0.3),
    "decay, schedule": dict(lr=schedule, weight_decay=0.3),
    "rate above 1/sqrt(t)": dict(lr=0.4),
    "relative step": dict(relative_step=True),
    "relative step, decay": dict(lr=0.1, relative_step=True, weight_decay=0.3),
    "all": dict(
        lr=schedule, beta2_decay=-0.5, eps=(1e-3, 1e-2), d=1.5, weight_decay=0.1, relative_step=True, maximize=True,
        max_grad_norm=3.0,
    ),
}  # fmt: skip

SCOPES = {name: {"r": "row", "c": "col"} for name in ("Adafactor", "AdafactorHF")}
STATEFUL = {"AdafactorHF": dict(beta1=0.9)}
