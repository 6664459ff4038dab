"""Every optimizer as plain NumPy equations in float64: what the compiled kernels are compared with.

Written from the papers' equations, never from the kernels. One function an optimizer, named like its class in lower
case: `rule(s, p, g, t, *, lr, ...)` takes the state `s` (a dict, filled and changed in place, names as in
`state_dict()`), the parameter, the gradient and the step `t` counted from 1, and returns the new parameter. What all
optimizers share (learning-rate schedules, maximize, grad_scale, clipping) is in `Reference`. The keyword defaults here
are those the package must have.
"""

import math

import numpy as np


def l2(g, p, weight_decay):
    """The gradient of loss + weight_decay/2 * |p|^2; a decay of zero leaves g alone even where p is infinite."""
    return g + weight_decay * p if weight_decay else g


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


def adagrad(
    state, p, g, t, *, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10,
    eps_inside_sqrt=False,
):  # fmt: skip
    g = l2(g, p, weight_decay)
    s = state["s"] = state.get("s", initial_accumulator_value) + g * g
    root = np.sqrt(s + eps) if eps_inside_sqrt else np.sqrt(s) + eps
    return p - lr / (1 + (t - 1) * lr_decay) * g / root


def rmsprop(
    s, p, g, t, *, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False,
    eps_inside_sqrt=False, lr_in_momentum=False, initial_square_avg=0.0,
):  # fmt: skip
    g = l2(g, p, weight_decay)
    v = d = s["v"] = alpha * s.get("v", initial_square_avg) + (1 - alpha) * g * g
    if centered:  # the variance; rounding may make it negative
        a = s["a"] = alpha * s.get("a", 0) + (1 - alpha) * g
        d = np.maximum(v - a * a, 0)
    root = np.sqrt(d + eps) if eps_inside_sqrt else np.sqrt(d) + eps
    if momentum == 0:
        return p - lr * g / root
    if lr_in_momentum:
        b = s["b"] = momentum * s.get("b", 0) + lr * g / root
        return p - b
    b = s["b"] = momentum * s.get("b", 0) + g / root
    return p - lr * b


def adam(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, bias_correction=True,
    eps_form="torch",
):  # fmt: skip
    beta1, beta2 = betas
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
    eps_form="torch", decay_form="lr", initial_lr=None,
):  # fmt: skip
    decay = {"lr": lr, "independent": lr / initial_lr}[decay_form] * weight_decay
    p = p * (1 - decay)
    return adam(
        s, p, g, t, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad, bias_correction=bias_correction, eps_form=eps_form
    )


NEEDS_INITIAL_LR = {"AdamW"}


def rule_of(optimizer):
    return globals()[optimizer.lower()]


class Reference:
    """One group of float64 copies of arrays, stepped like the optimizer class of that name."""

    def __init__(self, optimizer, params, *, maximize=False, max_grad_norm=None, nonfinite="propagate", **options):
        self.rule = rule_of(optimizer)
        self.params = [np.array(p, dtype=np.float64) for p in params]
        self.state = [{} for _ in params]
        self.t = 0
        self.maximize, self.max_grad_norm, self.options = maximize, max_grad_norm, options
        lr = options.get("lr", self.rule.__kwdefaults__["lr"])
        self.schedule = lr if callable(lr) else lambda step: lr
        if optimizer in NEEDS_INITIAL_LR:
            self.options["initial_lr"] = self.schedule(0)

    def step(self, grads, grad_scale=1.0):
        self.t += 1
        gs = [np.asarray(g).astype(np.float64) / grad_scale for g in grads]
        if self.max_grad_norm is not None:
            norm = math.sqrt(sum(float(np.sum(g * g)) for g in gs))
            gs = [g * min(1, self.max_grad_norm / (norm + 1e-6)) for g in gs]
        if self.maximize:
            gs = [-g for g in gs]
        options = self.options | {"lr": self.schedule(self.t - 1)}
        self.params = [
            self.rule(s, p, g, self.t, **options) for s, p, g in zip(self.state, self.params, gs, strict=True)
        ]
