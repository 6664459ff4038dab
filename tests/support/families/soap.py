"""SOAP."""

import numpy as np

from families.common import schedule


def as_matrix(p, layout):
    if p.ndim < 2 or p.size == 0:
        return p.reshape(-1, 1)
    return p.reshape((len(p), -1) if layout == "out_in" else (-1, p.shape[-1]))


def sides(shape, precondition_1d=False, max_precondition_dim=10000, layout="out_in", **_):
    """The lengths of the sides of an array's matrix that have eigenvectors."""
    if len(shape) < (1 if precondition_1d else 2) or 0 in shape:
        return {}
    lengths = as_matrix(np.empty(shape), layout).shape[: len(shape)]
    return {("left", "right")[k]: n for k, n in enumerate(lengths) if n <= max_precondition_dim}


def first_basis(statistics):
    if not np.isfinite(statistics).all():
        return np.eye(len(statistics))
    vectors = np.linalg.eigh(statistics)[1][:, ::-1]
    return vectors * np.where(vectors.sum(0) < 0, -1, 1)


def next_basis(statistics, basis):
    """One step of the power method on columns in the order of their eigenvalues, which go back to their places."""
    order = np.argsort(-np.diag(basis.T @ statistics @ basis), kind="stable")
    orthogonal, triangular = np.linalg.qr(statistics @ basis[:, order])
    result = np.empty_like(basis)
    result[:, order] = orthogonal * np.where(np.diag(triangular) < 0, -1, 1)
    return result


def soap(
    s, p, g, t, *, lr=3e-3, betas=(0.95, 0.95), shampoo_beta=None, eps=1e-8, weight_decay=0.01,
    precondition_frequency=10, correct_bias=True, precondition_1d=False, normalize_gradient=False,
    max_precondition_dim=10000, layout="out_in",
):  # fmt: skip
    beta = betas[1] if shampoo_beta is None else shampoo_beta
    own = sides(p.shape, precondition_1d, max_precondition_dim, layout)
    matrix = as_matrix(g, layout)
    new = {k: (1 - beta) * (a @ a.T) for k, a in {"left": matrix, "right": matrix.T}.items() if k in own}
    if t == 1:
        s["m"], s["v"] = np.zeros_like(p), np.zeros_like(p)
        for side, statistics in new.items():
            s[side], s[f"{side}_basis"] = statistics, first_basis(statistics)
        return p
    bases = {side: s[f"{side}_basis"] for side in own}

    def turned(a, back=False):
        a = as_matrix(a, layout)
        if "left" in bases:
            a = (bases["left"] if back else bases["left"].T) @ a
        if "right" in bases:
            a = a @ (bases["right"].T if back else bases["right"])
        return a.reshape(p.shape)

    m = s["m"] = betas[0] * s["m"] + (1 - betas[0]) * g
    v = s["v"] = betas[1] * s["v"] + (1 - betas[1]) * turned(g) ** 2
    u = turned(turned(m) / (np.sqrt(v) + eps), back=True)
    if normalize_gradient and p.size:
        u = u / (np.sqrt(np.mean(u * u)) + eps)
    rate = lr * np.sqrt(1 - betas[1] ** (t - 1)) / (1 - betas[0] ** (t - 1)) if correct_bias else lr
    for side, statistics in new.items():
        s[side] = beta * s[side] + statistics
        if (t - 1) % precondition_frequency == 0:
            s[f"{side}_basis"] = next_basis(s[side], bases[side])
    return (p - rate * u) * (1 - lr * weight_decay)


ROWS = {
    "SOAP": {
        "defaults": {},
        "lr": dict(lr=0.02),
        "betas": dict(lr=0.02, betas=(0.8, 0.9)),
        "beta of the statistics": dict(lr=0.02, shampoo_beta=0.8, precondition_frequency=4),
        "no decay": dict(lr=0.02, weight_decay=0.0),
        "each step": dict(lr=0.02, precondition_frequency=1),
        "no correction": dict(lr=0.02, correct_bias=False),
        "normalized": dict(lr=0.02, normalize_gradient=True),
        "vectors too": dict(lr=0.02, precondition_1d=True),
        "short sides": dict(lr=0.02, max_precondition_dim=2),
        "inputs first": dict(lr=0.02, layout="in_out"),
        "eps": dict(lr=0.02, eps=0.1),
        "all": dict(
            lr=schedule, betas=(0.9, 0.8), shampoo_beta=0.85, eps=0.1, weight_decay=0.2, precondition_frequency=3,
            correct_bias=False, precondition_1d=True, normalize_gradient=True, max_precondition_dim=5, layout="in_out",
            maximize=True, max_grad_norm=3.0,
        ),
    }
}  # fmt: skip


def of_side(side):
    """The shape of what belongs to one side."""

    def shape_of(shape, **options):
        own = sides(shape, **{k: v for k, v in options.items() if k != "maximize"})
        return (own[side], own[side]) if side in own else None

    return shape_of


SCOPES = {"SOAP": {f"{side}{of}": of_side(side) for side in ("left", "right") for of in ("", "_basis")}}
