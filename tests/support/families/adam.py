"""Adam and AdamW."""

import math

import numpy as np

from families.common import cautioned, l2, schedule


def adam(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, bias_correction=True,
    eps_form="torch", catch_up=False,
):  # fmt: skip
    beta1, beta2 = betas
    if catch_up:  # nothing is missed in steps over whole arrays
        s["last"] = np.full(rows_shape(np.shape(g)), float(t)) if np.size(g) else np.zeros(rows_shape(np.shape(g)))
    g = l2(g, p, weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    if amsgrad:  # the maximum of the raw second moments, corrected afterwards
        v = s["vmax"] = np.maximum(s.get("vmax", 0), v)
    bc1, bc2 = (1 - beta1**t, 1 - beta2**t) if bias_correction else (1, 1)
    if eps_form == "torch":
        return p - lr / bc1 * m / (np.sqrt(v) / math.sqrt(bc2) + eps)
    if eps_form == "keras":  # epsilon-hat of the paper
        return p - lr * math.sqrt(bc2) / bc1 * m / (np.sqrt(v) + eps)
    raise AssertionError(eps_form)


def adamw(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, bias_correction=True,
    eps_form="torch", decay_form="lr", cautious=None, scale_by_rms=False, catch_up=False, initial_lr=None,
):  # fmt: skip
    decay = {"lr": lr, "independent": lr / initial_lr}[decay_form] * weight_decay
    scale = np.maximum(1e-3, np.sqrt(np.mean(p * p))) if scale_by_rms and p.size else 1.0
    p = p * (1 - decay)
    options = dict(lr=lr, betas=betas, eps=eps, amsgrad=amsgrad, bias_correction=bias_correction, eps_form=eps_form)
    options |= dict(catch_up=catch_up)
    if cautious is None and not scale_by_rms:
        return adam(s, p, g, t, **options)
    return p + scale * -cautioned(-adam(s, 0.0, g, t, **options), g, cautious)


def rows_shape(shape, **_):
    """The shape of a state with a number for each slice along the first axis."""
    return (*shape[:1], *(1 for _ in shape[1:]))


ROWS = {}

ADAM = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.95)),
    "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
    "eps": dict(lr=0.01, eps=1e-2),
    "decay": dict(lr=0.01, weight_decay=0.1),
    "no decay": dict(lr=0.01, weight_decay=0.0),
    "amsgrad": dict(lr=0.01, amsgrad=True, betas=(0.9, 0.9)),
    "amsgrad, decay, maximize": dict(lr=0.01, amsgrad=True, weight_decay=0.1, maximize=True),
    "uncorrected": dict(lr=0.01, bias_correction=False),
    "uncorrected, amsgrad": dict(lr=0.01, bias_correction=False, amsgrad=True, betas=(0.9, 0.9)),
    "keras": dict(lr=0.01, eps_form="keras", eps=1e-2),
    "keras, amsgrad": dict(lr=0.01, eps_form="keras", eps=1e-3, amsgrad=True, betas=(0.9, 0.9)),
    "keras, uncorrected": dict(lr=0.01, eps_form="keras", eps=1e-2, bias_correction=False),
    "catching up": dict(lr=0.01, catch_up=True, betas=(0.8, 0.95), weight_decay=0.1),
    "all": dict(
        lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, amsgrad=True, eps_form="keras", maximize=True,
        max_grad_norm=3.0,
    ),
}  # fmt: skip

ROWS["Adam"] = ADAM
ROWS["AdamW"] = ADAM | {
    "decay, schedule": dict(lr=schedule, weight_decay=0.3),
    "independent": dict(lr=0.01, weight_decay=0.05, decay_form="independent"),
    "independent, schedule": dict(lr=schedule, weight_decay=0.05, decay_form="independent"),
    "independent, amsgrad, keras": dict(
        lr=schedule, weight_decay=0.05, decay_form="independent", amsgrad=True, eps_form="keras"
    ),
    "cautious": dict(lr=0.01, cautious="mean"),
    "cautious, plus one": dict(lr=0.01, cautious="plus_one", betas=(0.8, 0.95), eps_form="keras", eps=1e-3),
    "by rms": dict(lr=0.01, scale_by_rms=True),
    "by rms, cautious, schedule": dict(
        lr=schedule, scale_by_rms=True, cautious="mean", weight_decay=0.3, maximize=True, max_grad_norm=3.0
    ),
}

INT8 = {"Adam", "AdamW"}
SCOPES = {name: {"last": rows_shape} for name in ROWS}
