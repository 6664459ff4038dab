"""The optimizers as plain NumPy expressions; `digits.py` compares their speed with the package's.

Each function updates one parameter array in place with one gradient; `state` is that array's dict, empty at first, and
`t` counts the steps from 1. To time another optimizer, add its function to `EXPRESSIONS` under its name in
`schuss.OPTIMIZERS`.
"""

import math

import numpy as np


def sgd(p, g, state, t, *, lr=1e-3, momentum=0.0, nesterov=False):
    if momentum == 0.0:
        p -= lr * g
        return
    b = state["b"] = g.copy() if t == 1 else momentum * state["b"] + g
    p -= lr * (g + momentum * b) if nesterov else lr * b


def adagrad(p, g, state, t, *, lr=1e-2, eps=1e-10):
    s = state["s"] = state.get("s", 0.0) + g * g
    p -= lr * g / (np.sqrt(s) + eps)


def rmsprop(p, g, state, t, *, lr=1e-2, alpha=0.99, eps=1e-8):
    v = state["v"] = alpha * state.get("v", 0.0) + (1 - alpha) * g * g
    p -= lr * g / (np.sqrt(v) + eps)


def adam(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    beta1, beta2 = betas
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g * g
    # math.sqrt, because NumPy's returns a float64 scalar, which would make the whole expression float64.
    p -= lr / (1 - beta1**t) * m / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)


def adamw(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
    p *= 1 - lr * weight_decay
    adam(p, g, state, t, lr=lr, betas=betas, eps=eps)


def nag(p, g, state, t, *, lr=1e-3, momentum=0.9):
    b = state.get("b", np.zeros_like(p))
    here = p.copy()
    p -= lr * momentum * b  # moves to the point of the next gradient
    p[...] = here
    b = state["b"] = momentum * b + g
    p -= lr * b


def radam(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    beta1, beta2 = betas
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g * g
    bc1, bc2 = 1 - beta1**t, 1 - beta2**t
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / bc2
    if rho > 5:
        r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        p -= lr / bc1 * r * math.sqrt(bc2) * m / (np.sqrt(v) + eps)
    else:
        p -= lr / bc1 * m


def synchronize(p, state, t, k, alpha):
    if t % k == 0:
        state["slow"] += alpha * (p - state["slow"])
        p[...] = state["slow"]


def lookahead_adam(p, g, state, t, *, lr=1e-3):
    state.setdefault("slow", p.copy())
    adam(p, g, state, t, lr=lr)
    synchronize(p, state, t, k=5, alpha=0.5)


def ranger(p, g, state, t, *, lr=1e-3):
    state.setdefault("slow", p.copy())
    if g.ndim > 1:
        g = g - g.mean(axis=tuple(range(g.ndim - 1)), keepdims=True)
    radam(p, g, state, t, lr=lr, betas=(0.95, 0.999), eps=1e-5)
    synchronize(p, state, t, k=6, alpha=0.5)


def lars(p, g, state, t, *, lr, momentum=0.9, weight_decay=0.0, trust_coefficient=1e-3, eps=1e-8):
    norm_p, norm_g = float(np.linalg.norm(p)), float(np.linalg.norm(g))
    adapted = weight_decay and norm_p and norm_g
    ratio = trust_coefficient * norm_p / (norm_g + weight_decay * norm_p + eps) if adapted else 1
    d = lr * ratio * (g + weight_decay * p)
    b = state["b"] = d if t == 1 else momentum * state["b"] + d
    p -= b


def lamb(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=1e-2):
    beta1, beta2 = betas
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g * g
    u = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps) + weight_decay * p
    norm_p, norm_u = float(np.linalg.norm(p)), float(np.linalg.norm(u))
    p -= lr * (norm_p / norm_u if norm_p and norm_u else 1) * u


EXPRESSIONS = {
    "SGD": sgd,
    "Adagrad": adagrad,
    "RMSprop": rmsprop,
    "Adam": adam,
    "AdamW": adamw,
    "NAG": nag,
    "RAdam": radam,
    "Lookahead(Adam)": lookahead_adam,
    "Ranger": ranger,
    "LARS": lars,
    "LAMB": lamb,
}
