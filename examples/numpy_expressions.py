"""What the optimizers look like as plain NumPy, the way one writes them in a notebook: what `digits.py` times against.

Each function updates one parameter array in place with one gradient; `state` is a dict that starts empty and belongs to
that array, `t` counts the steps from 1. Every operation makes a temporary array, as NumPy expressions do. To time a
further optimizer, add its function to `EXPRESSIONS` under the name it has in `schuss.OPTIMIZERS`.
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
    # math.sqrt: NumPy's would return a float64 scalar, and that would turn the whole expression into float64.
    p -= lr / (1 - beta1**t) * m / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)


def adamw(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
    p *= 1 - lr * weight_decay
    adam(p, g, state, t, lr=lr, betas=betas, eps=eps)


EXPRESSIONS = {"SGD": sgd, "Adagrad": adagrad, "RMSprop": rmsprop, "Adam": adam, "AdamW": adamw}
