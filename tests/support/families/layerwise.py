"""LARS, LAMB and NovoGrad: rates that depend on norms of a layer."""

import math

import numpy as np

from families.common import l2, schedule


def norm(a):
    return math.sqrt(np.sum(a * a))


def lars(
    s, p, g, t, *, lr, momentum=0.9, weight_decay=0.0, trust_coefficient=1e-3, eps=1e-8, nesterov=False, dampening=0.0,
    trust_clip=False, always_adapt=False, lr_in_momentum=True, adapt=True,
):  # fmt: skip
    ratio = 1.0
    if adapt and (weight_decay or always_adapt) and norm(p) != 0 and norm(g) != 0:
        ratio = trust_coefficient * norm(p) / (norm(g) + weight_decay * norm(p) + eps)
        if trust_clip:
            ratio = np.minimum(ratio / lr, 1)  # a NaN stays one
    d = (lr if lr_in_momentum else 1) * ratio * l2(g, p, weight_decay)
    if momentum == 0:
        b = s["b"] = d
    else:  # as in SGD, the first step copies without dampening
        b = s["b"] = d if t == 1 else momentum * s["b"] + (1 - dampening) * d
    return p - (1 if lr_in_momentum else lr) * (d + momentum * b if nesterov else b)


def lamb(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=1e-2, bias_correction=True, grad_averaging=True,
    always_adapt=False, trust_clip=False, adapt=True,
):  # fmt: skip
    beta1, beta2 = betas
    bc1, bc2 = (1 - beta1**t, 1 - beta2**t) if bias_correction else (1, 1)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1 if grad_averaging else 1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    u = l2(m / bc1 / (np.sqrt(v / bc2) + eps), p, weight_decay)
    ratio = 1.0
    if adapt and (weight_decay or always_adapt) and norm(p) != 0 and norm(u) != 0:
        ratio = norm(p) / norm(u)
        if trust_clip:
            ratio = np.minimum(ratio, 1)
    return p - lr * ratio * u


def novograd(s, p, g, t, *, lr=1e-3, betas=(0.95, 0.98), eps=1e-8, weight_decay=0.0, grad_averaging=False):
    beta1, beta2 = betas
    squares = np.sum(g * g)
    v = s["v"] = squares if t == 1 else beta2 * s["v"] + (1 - beta2) * squares
    u = l2(g / (np.sqrt(v) + eps), p, weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1 if grad_averaging else 1) * u
    return p - lr * m


ROWS = {}

ROWS["LARS"] = {
    "defaults": dict(lr=0.1),
    "decay": dict(lr=0.1, weight_decay=0.1),
    "always": dict(lr=0.1, always_adapt=True, trust_coefficient=0.1),
    "momentum, decay": dict(lr=0.1, momentum=0.5, weight_decay=0.1, trust_coefficient=0.1),
    "no momentum": dict(lr=0.1, momentum=0.0, weight_decay=0.1, dampening=0.5, nesterov=True),
    "eps": dict(lr=0.1, weight_decay=0.1, eps=1.0, trust_coefficient=0.1),
    "nesterov": dict(lr=0.1, weight_decay=0.1, nesterov=True, trust_coefficient=0.1),
    "dampening": dict(lr=0.1, weight_decay=0.1, dampening=0.5, trust_coefficient=0.1),
    "clip": dict(lr=0.1, weight_decay=0.1, trust_clip=True, trust_coefficient=0.05),
    "clip, always, schedule": dict(lr=schedule, always_adapt=True, trust_clip=True, trust_coefficient=0.02),
    "timm": dict(lr=0.1, weight_decay=0.1, lr_in_momentum=False, trust_coefficient=0.1),
    "timm, schedule": dict(lr=schedule, weight_decay=0.1, lr_in_momentum=False, nesterov=True, trust_coefficient=0.1),
    "schedule, decay": dict(lr=schedule, weight_decay=0.1, trust_coefficient=0.1),
    "not adapted": dict(lr=0.1, weight_decay=0.1, always_adapt=True, adapt=False),
    "all": dict(
        lr=schedule, momentum=0.8, weight_decay=0.1, trust_coefficient=0.1, eps=1e-3, nesterov=True, dampening=0.1,
        trust_clip=True, always_adapt=True, lr_in_momentum=False, maximize=True, max_grad_norm=3.0,
    ),
}  # fmt: skip

# Without LAMB's default clipping, except in rows that test it.
ROWS["LAMB"] = {
    row: dict(max_grad_norm=None) | kwargs
    for row, kwargs in {
        "defaults but for clipping": {},
        "lr": dict(lr=0.01),
        "betas": dict(lr=0.01, betas=(0.8, 0.95)),
        "eps": dict(lr=0.01, eps=1e-2),
        "decay": dict(lr=0.01, weight_decay=0.3),
        "no decay": dict(lr=0.01, weight_decay=0.0),
        "no decay, always": dict(lr=0.01, weight_decay=0.0, always_adapt=True),
        "uncorrected": dict(lr=0.01, bias_correction=False),
        "no averaging": dict(lr=0.01, grad_averaging=False),
        "clip": dict(lr=0.01, trust_clip=True),
        "not adapted": dict(lr=0.01, adapt=False, weight_decay=0.1),
        "schedule, not clipped": dict(lr=schedule),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, bias_correction=False, grad_averaging=False,
            always_adapt=True, trust_clip=True, maximize=True, max_grad_norm=3.0,
        ),
    }.items()
}  # fmt: skip
ROWS["LAMB"]["defaults"] = {}

ROWS["NovoGrad"] = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.5)),
    "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
    "eps": dict(lr=0.01, eps=1.0),
    "decay": dict(lr=0.01, weight_decay=0.3),
    "averaging": dict(lr=0.01, grad_averaging=True),
    "averaging, decay, schedule": dict(lr=schedule, grad_averaging=True, weight_decay=0.1),
    "all": dict(
        lr=schedule, betas=(0.85, 0.9), eps=1e-2, weight_decay=0.1, grad_averaging=True, maximize=True,
        max_grad_norm=3.0,
    ),
}  # fmt: skip

INT8 = {"LARS", "NovoGrad"}
REQUIRED = {"LARS": dict(lr=0.1)}
SCOPES = {"NovoGrad": {"v": "array"}}
