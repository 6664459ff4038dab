"""RAdam and Ranger."""

import math

import numpy as np

from families.common import l2, schedule


def radam(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False, threshold=5.0,
    unrectified="sgd", eps_form="torch",
):  # fmt: skip
    beta1, beta2 = betas
    bc1, bc2 = 1 - beta1**t, 1 - beta2**t
    inf = 2 / (1 - beta2) - 1
    rho = inf - 2 * t * beta2**t / bc2
    still = rho <= threshold and unrectified == "frozen"
    if not decoupled_weight_decay:
        g = l2(g, p, weight_decay)
    elif not still:
        p = p * (1 - lr * weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    if rho > threshold:
        r = math.sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho))
        if eps_form == "corrected":
            return p - lr * (m / bc1) * r / (np.sqrt(v / bc2) + eps)
        return p - lr * (m / bc1) * r * math.sqrt(bc2) / (np.sqrt(v) + eps)
    return p if still else p - lr * m / bc1


def ranger(
    s, p, g, t, *, lr=1e-3, betas=(0.95, 0.999), eps=1e-5, weight_decay=0.0, threshold=5.0,
    gradient_centralization=True, gc_conv_only=False, layout="in_out",
):  # fmt: skip
    if gradient_centralization and g.size and g.ndim > (3 if gc_conv_only else 1):
        axes = range(1, g.ndim) if layout == "out_in" else range(g.ndim - 1)
        g = g - g.mean(axis=tuple(axes), keepdims=True)
    return radam(
        s, p, g, t, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled_weight_decay=True,
        threshold=threshold,
    )  # fmt: skip


ROWS = {}

# With the default betas the first five steps are not rectified.
ROWS["RAdam"] = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.95)),
    "never rectified": dict(lr=0.01, betas=(0.5, 0.5)),
    "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
    "eps": dict(lr=0.01, eps=1e-2),
    "decay": dict(lr=0.01, weight_decay=0.1),
    "decoupled": dict(lr=0.01, weight_decay=0.3, decoupled_weight_decay=True),
    "threshold": dict(lr=0.01, threshold=4.0),
    "eps, corrected": dict(lr=0.01, eps=1e-2, betas=(0.8, 0.95), eps_form="corrected"),
    "frozen": dict(lr=0.01, unrectified="frozen"),
    "frozen, decay": dict(lr=0.01, unrectified="frozen", weight_decay=0.1),
    "frozen, decoupled": dict(lr=0.1, unrectified="frozen", weight_decay=0.3, decoupled_weight_decay=True),
    "all": dict(
        lr=schedule, betas=(0.85, 0.99), eps=1e-3, weight_decay=0.1, decoupled_weight_decay=True, threshold=6.5,
        unrectified="frozen", maximize=True, max_grad_norm=3.0,
    ),
}  # fmt: skip

ROWS["Ranger"] = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.95)),
    "eps": dict(lr=0.01, eps=1e-2),
    "decay": dict(lr=0.01, weight_decay=0.3),
    "k, alpha": dict(lr=0.01, k=2, alpha=0.8),
    "k 1, alpha 1": dict(lr=0.01, k=1, alpha=1.0),
    "threshold": dict(lr=0.01, threshold=4.0),
    "no centralization": dict(lr=0.01, gradient_centralization=False, k=3),
    "conv only": dict(lr=0.01, gc_conv_only=True),
    "all": dict(
        lr=schedule, betas=(0.85, 0.99), eps=1e-3, weight_decay=0.1, k=3, alpha=0.25, threshold=6.5, gc_conv_only=True,
        maximize=True, max_grad_norm=3.0,
    ),
    "in_out": dict(lr=0.01, k=2, layout="in_out"),
    "in_out, decay": dict(lr=0.1, weight_decay=0.3, maximize=True, max_grad_norm=3.0, layout="in_out"),
}  # fmt: skip

# In rows that do not say it: the recorded bits are those of PyTorch's layout.
GIVEN = {"Ranger": dict(layout="out_in")}

INT8 = {"RAdam", "Ranger"}
