"""Newton's method."""

import functools

import numpy as np

from families.common import schedule


@functools.cache
def hessian(n):
    """The tests' Hessian of n unknowns: full, symmetric and positive definite."""
    k = np.arange(n)
    return np.diag(1.0 + k % 3) + 0.5 ** abs(k[:, None] - k)


def newton(s, p, g, t, *, lr=1.0, damping=0.0, fallback="damp"):
    """All parameters as one vector."""
    return p - lr * np.linalg.solve(hessian(p.size) + damping * np.eye(p.size), g)


ROWS = {}

# The tests' Hessian is positive definite; where it is not, and the fallbacks, is in test_newton.py.
ROWS["Newton"] = {
    "defaults": {},
    "lr": dict(lr=0.5),
    "damping": dict(damping=0.5),
    "all": dict(lr=schedule, damping=0.1, fallback="error", maximize=True, max_grad_norm=3.0),
}

JOINT = {"Newton"}
