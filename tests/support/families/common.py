"""Shared by the equations and rows of several families."""

import numpy as np


def l2(g, p, weight_decay):
    """The gradient of loss + weight_decay/2 * |p|^2; a decay of zero leaves g alone even where p is infinite."""
    return g + weight_decay * p if weight_decay else g


def decayed(p, g, lr, weight_decay, decoupled):
    """Parameter and gradient after either form of weight decay."""
    return (p * (1 - lr * weight_decay), g) if decoupled else (p, l2(g, p, weight_decay))


def schedule(step):
    """A learning rate with warm-up and decay; `step` counts from 0. A named function, so that it can be pickled."""
    return 0.05 * min(1.0, (step + 1) / 4) * 0.9**step


def cautioned(u, g, form):
    """The cautious form of an update in the direction `u`."""
    if form is None or not u.size:
        return u
    mask = u * g > 0
    scale = 1 / max(np.mean(mask), 1e-3) if form == "mean" else mask.size / (np.sum(mask) + 1)
    return u * mask * scale
