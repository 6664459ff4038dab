"""Muon."""

import math

import numpy as np

from families.common import schedule

POLAR = ((8.2872, -23.5959, 17.3004), (4.1071, -2.9478, 0.5448), (3.9487, -2.9089, 0.5518))


def muon(
    s, p, g, t, *, lr=1e-3, momentum=0.95, nesterov=True, ns_coefficients=(3.4445, -4.775, 2.0315), ns_steps=5,
    eps=1e-7, eps_form="max", weight_decay=0.1, adjust_lr_fn="original", momentum_form="ema", bias_correction=False,
    layout="out_in", fallback=False, betas=(0.9, 0.999), adam_eps=1e-8,
):  # fmt: skip
    p = p * (1 - lr * weight_decay) if weight_decay else p
    if p.ndim < 2 or fallback:
        m = s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
        v = s["v"] = betas[1] * s.get("v", 0) + (1 - betas[1]) * g * g
        return p - lr * m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + adam_eps)
    gain = 1 if momentum_form == "heavy_ball" else 1 - momentum
    b = s["b"] = momentum * s.get("b", 0) + gain * g
    now, following = (1 - momentum**t, 1 - momentum ** (t + 1)) if bias_correction else (1, 1)
    u = momentum * b / following + gain * g / now if nesterov else b / now
    if p.size == 0:
        return p
    shape = (len(p), -1) if layout == "out_in" else (-1, p.shape[-1])
    x = u.reshape(shape)
    outputs, inputs = x.shape if layout == "out_in" else x.shape[::-1]
    length = np.sqrt(np.sum(x * x))
    x = x / (max(length, eps) if eps_form == "max" else length + eps)
    for a, b, c in ns_coefficients if np.ndim(ns_coefficients) > 1 else [ns_coefficients] * ns_steps:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    factor = {
        "original": math.sqrt(max(1, outputs / inputs)),
        "match_rms_adamw": 0.2 * math.sqrt(max(outputs, inputs)),
        "spectral_unclamped": math.sqrt(outputs / inputs),
        None: 1,
    }[adjust_lr_fn]
    return p - lr * factor * x.reshape(p.shape)


ROWS = {
    "Muon": {
        "defaults": {},
        "lr": dict(lr=0.02),
        "momentum": dict(lr=0.02, momentum=0.8, weight_decay=0.0),
        "no momentum": dict(lr=0.02, momentum=0.0, weight_decay=0.0),
        "not nesterov": dict(lr=0.02, nesterov=False),
        "heavy ball": dict(lr=0.02, momentum_form="heavy_ball"),
        "bias correction": dict(lr=0.02, bias_correction=True),
        "bias correction, not nesterov": dict(lr=0.02, bias_correction=True, nesterov=False, eps=2.0),
        "match AdamW": dict(lr=0.02, adjust_lr_fn="match_rms_adamw"),
        "spectral": dict(lr=0.02, adjust_lr_fn="spectral_unclamped"),
        "no factor": dict(lr=0.02, adjust_lr_fn=None),
        "inputs first": dict(lr=0.02, layout="in_out"),
        "inputs first, spectral": dict(lr=0.02, layout="in_out", adjust_lr_fn="spectral_unclamped"),
        "eps": dict(lr=0.02, eps=10.0),
        "eps added": dict(lr=0.02, eps=0.5, eps_form="add"),
        "steps": dict(lr=0.02, ns_steps=2),
        "coefficients": dict(lr=0.02, ns_coefficients=(3.0, -3.2, 1.2)),
        "coefficients of each step": dict(lr=0.02, ns_coefficients=POLAR, ns_steps=3),
        "fallback": dict(lr=0.02, fallback=True, betas=(0.8, 0.95), adam_eps=1e-3),
        "all": dict(
            lr=schedule, momentum=0.9, nesterov=False, ns_steps=4, eps=1e-3, eps_form="add", weight_decay=0.2,
            adjust_lr_fn="match_rms_adamw", momentum_form="heavy_ball", bias_correction=True, layout="in_out",
            betas=(0.7, 0.9), adam_eps=1e-4, maximize=True, max_grad_norm=3.0,
        ),
    }
}  # fmt: skip


def of_matrices(shape, fallback=False, **_):
    """The momentum's shape; other arrays have none."""
    return shape if len(shape) > 1 and not fallback else None


def of_others(shape, fallback=False, **_):
    """The shape of AdamW's averages; matrices have none."""
    return shape if len(shape) < 2 or fallback else None


SCOPES = {"Muon": {"b": of_matrices, "m": of_others, "v": of_others}}
