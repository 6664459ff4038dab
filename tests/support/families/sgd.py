"""Gradient descent with momentum, and NAG."""

from families.common import l2, schedule


def sgd(
    s, p, g, t, *, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False,
    momentum_form="heavy_ball", debias=False,
):  # fmt: skip
    mu = momentum
    g = l2(g, p, weight_decay)
    if mu == 0:
        return p - lr * g
    if momentum_form == "heavy_ball":  # Polyak; the first step copies g, undamped, as PyTorch does
        b = s["b"] = g.copy() if t == 1 else mu * s["b"] + (1 - dampening) * g
        return p - lr * (g + mu * b if nesterov else b)
    if momentum_form == "velocity":
        b = s["b"] = mu * s.get("b", 0) + lr * g
        return p - (mu * b + lr * g if nesterov else b)
    if momentum_form == "ema":
        b = s["b"] = mu * s.get("b", 0) + (1 - mu) * g
        return p - (lr / (1 - mu**t) if debias else lr) * b
    raise AssertionError(momentum_form)


def nag(s, p, g, t, *, lr=1e-3, momentum=0.9, form="heavy_ball", lookahead=None, weight_decay=0.0):
    """Given the gradients: where they are taken, which is all that `lookahead` is about, is the caller's business."""
    g = l2(g, p, weight_decay)
    b = s["b"] = momentum * s.get("b", 0) + {"heavy_ball": 1, "ema": 1 - momentum}[form] * g
    return p - lr * b


ROWS = {}

ROWS["SGD"] = {
    "defaults": {},
    "lr": dict(lr=0.1),
    "decay": dict(lr=0.1, weight_decay=0.1),
    "dampening without momentum": dict(lr=0.1, dampening=0.5),
    "momentum": dict(lr=0.1, momentum=0.9),
    "momentum, dampening": dict(lr=0.1, momentum=0.9, dampening=0.5),
    "momentum, decay, schedule": dict(lr=schedule, momentum=0.8, weight_decay=0.05),
    "nesterov": dict(lr=0.1, momentum=0.9, nesterov=True),
    "nesterov, decay, maximize": dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, maximize=True),
    "momentum, clipped": dict(lr=0.1, momentum=0.9, max_grad_norm=2.0),
    "velocity": dict(lr=0.1, momentum=0.9, momentum_form="velocity"),
    "velocity, schedule": dict(lr=schedule, momentum=0.9, momentum_form="velocity"),
    "velocity, no momentum": dict(lr=0.1, momentum_form="velocity"),
    "velocity, nesterov": dict(lr=0.1, momentum=0.9, momentum_form="velocity", nesterov=True),
    "velocity, nesterov, schedule, decay": dict(
        lr=schedule, momentum=0.9, momentum_form="velocity", nesterov=True, weight_decay=0.1
    ),
    "ema": dict(lr=0.1, momentum=0.9, momentum_form="ema"),
    "ema, decay, schedule": dict(lr=schedule, momentum=0.9, momentum_form="ema", weight_decay=0.1),
    "ema, debias": dict(lr=0.1, momentum=0.9, momentum_form="ema", debias=True),
    "ema, debias, schedule, maximize": dict(
        lr=schedule, momentum=0.95, momentum_form="ema", debias=True, maximize=True
    ),
}  # fmt: skip

ROWS["NAG"] = {
    "defaults": {},
    "lr, decay": dict(lr=0.1, weight_decay=0.1),
    "momentum": dict(lr=0.1, momentum=0.5),
    "lookahead": dict(lr=0.1, lookahead=0.9),
    "lookahead 0": dict(lr=0.1, lookahead=0.0),
    "ema": dict(lr=0.1, form="ema"),
    "ema, lookahead, decay": dict(lr=0.1, form="ema", lookahead=0.5, weight_decay=0.1),
    "all": dict(
        lr=schedule, momentum=0.8, form="ema", lookahead=0.2, weight_decay=0.1, maximize=True, max_grad_norm=3.0
    ),
}

INT8 = {"SGD", "NAG"}
STATEFUL = {"SGD": dict(momentum=0.9)}
