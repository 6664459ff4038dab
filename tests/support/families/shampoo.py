"""Shampoo."""

import numpy as np

from families.common import decayed, schedule


def as_matrix(p, layout):
    if p.ndim < 2 or p.size == 0:
        return p.reshape(-1, 1)
    return p.reshape((len(p), -1) if layout == "out_in" else (-1, p.shape[-1]))


def cuts(length, most, blocking):
    """The blocks of a side, and whether they have preconditioners."""
    if not blocking and length > most:
        return [slice(0, length)], False
    return [slice(k, min(k + most, length)) for k in range(0, length, most)], True


def sides(shape, max_preconditioner_dim=1024, blocking=True, layout="out_in", **_):
    """The sides that have preconditioners, and the shapes of these, one for each block."""
    if 0 in shape:
        return {}
    matrix = as_matrix(np.empty(shape), layout)
    (rows, left), (columns, right) = (cuts(n, max_preconditioner_dim, blocking) for n in matrix.shape)

    def stacked(own, others):
        square = own[-1].stop, own[0].stop
        return square if len(others) == 1 else (len(others), *square)

    found = {"left": stacked(rows, columns)} if left else {}
    return found | ({"right": stacked(columns, rows)} if right and len(shape) > 1 else {})


def root(statistics, eps, power):
    if not np.isfinite(statistics).all():
        return np.full_like(statistics, np.nan)
    values, vectors = np.linalg.eigh(statistics)
    return vectors @ np.diag((np.maximum(values, 0) + eps) ** -power) @ vectors.T


def shampoo(
    s, p, g, t, *, lr=1e-2, momentum=0.0, momentum_form="heavy_ball", eps=1e-6, weight_decay=0.0,
    decoupled_weight_decay=False, beta2=1.0, update_freq=1, start_preconditioning_step=1, before_first_root="step",
    order=2, grafting=None, grafting_beta2=0.999, grafting_eps=1e-8, max_preconditioner_dim=1024, blocking=True,
    layout="out_in",
):  # fmt: skip
    p, g = decayed(p, g, lr, weight_decay, decoupled_weight_decay)
    squares = grafting in ("adagrad", "rmsprop", "adam")
    if momentum_form == "feedback" and momentum and t > 1:
        g = (1 - momentum) * g + momentum * s["b"]
    u = g
    if momentum_form == "ema" and momentum:
        s["b"] = momentum * s.get("b", 0) + (1 - momentum) * g
        u = s["b"] / (1 - momentum**t)
    other = u
    if squares:
        weights = (1, 1) if grafting == "adagrad" else (grafting_beta2, 1 - grafting_beta2)
        v = s["v"] = weights[0] * s.get("v", 0) + weights[1] * g * g
        other = u / (np.sqrt(v / (1 - grafting_beta2**t) if grafting == "adam" else v) + grafting_eps)
    own = sides(p.shape, max_preconditioner_dim, blocking, layout)
    rooted = t // update_freq * update_freq >= start_preconditioning_step
    if own:
        matrix, gradient = as_matrix(u, layout), as_matrix(g, layout)
        taken = t % update_freq == 0 and t >= start_preconditioning_step
        (rows, _), (columns, _) = (cuts(n, max_preconditioner_dim, blocking) for n in matrix.shape)
        result = matrix.copy()
        for side, shape in own.items():
            statistics = s[side] = beta2 * s.get(side, np.zeros(shape)) + 0.0
            roots = s[f"{side}_root"] = s.get(f"{side}_root", np.zeros(shape)).copy()
            left = side == "left"
            for k, there in enumerate(columns if left else rows):
                for here in rows if left else columns:
                    at = (k, here, slice(here.stop - here.start))[0 if len(shape) == 3 else 1 :]
                    block = gradient[here, there] if left else gradient.T[here, there]
                    statistics[at] += (1 - beta2 if beta2 < 1 else 1) * (block @ block.T)
                    if taken:
                        whole = statistics[at] / (1 - beta2**t if beta2 < 1 else 1)
                        roots[at] = root(whole, eps, 1 / (order * len(own)))
                    if left:
                        result[here, there] = roots[at] @ result[here, there]
                    else:
                        result[there, here] = result[there, here] @ roots[at]
        if rooted:
            u = result.reshape(p.shape)
            if grafting:
                u = u * (np.linalg.norm(other) / (np.linalg.norm(u) + 1e-16))
        else:
            u = other if before_first_root == "step" else np.zeros_like(u)
    else:
        u = other
    if (squares and not momentum) or (momentum_form == "feedback" and momentum):
        s["b"] = u
    if momentum_form == "heavy_ball" and momentum:
        u = s["b"] = momentum * s.get("b", 0) + u
    return p - lr * u


# Long vectors have no preconditioner, which would take long.
SHORT = dict(max_preconditioner_dim=32, blocking=False)

ROWS = {
    "Shampoo": {
        "defaults": {},
        "lr": dict(lr=0.1),
        "eps": dict(lr=0.1, eps=0.1),
        "decay": dict(lr=0.1, weight_decay=0.1),
        "decoupled decay": dict(lr=0.1, weight_decay=0.1, decoupled_weight_decay=True),
        "momentum": dict(lr=0.05, momentum=0.8, **SHORT),
        "ema": dict(lr=0.1, momentum=0.8, momentum_form="ema"),
        "feedback": dict(lr=0.1, momentum=0.5, momentum_form="feedback"),
        "average of the statistics": dict(lr=0.02, eps=1e-3, beta2=0.9),
        "every third step": dict(lr=0.1, update_freq=3),
        "every third step, waiting": dict(lr=0.1, update_freq=3, before_first_root="wait"),
        "from step 4": dict(lr=0.1, grafting="sgd", start_preconditioning_step=4, update_freq=2),
        "order": dict(lr=0.02, eps=0.1, order=1),
        "grafting SGD": dict(lr=0.02, grafting="sgd"),
        "grafting Adagrad": dict(lr=0.1, grafting="adagrad", grafting_eps=1e-3),
        "grafting RMSprop": dict(lr=0.02, grafting="rmsprop", grafting_beta2=0.9),
        "grafting Adam": dict(lr=0.02, grafting="adam", update_freq=2),
        "grafting Adam, ema": dict(lr=0.02, momentum=0.9, momentum_form="ema", grafting="adam", beta2=0.95, eps=1e-3),
        "grafting Adam, momentum": dict(lr=0.01, momentum=0.9, grafting="adam"),
        "grafting Adam, feedback": dict(lr=0.02, momentum=0.5, momentum_form="feedback", grafting="adam"),
        "blocks": dict(lr=0.1, max_preconditioner_dim=2),
        "short sides": dict(lr=0.1, max_preconditioner_dim=5, blocking=False, grafting="adagrad"),
        "inputs first": dict(lr=0.1, layout="in_out"),
        "all": dict(
            lr=schedule, momentum=0.7, momentum_form="ema", eps=0.1, weight_decay=0.2, decoupled_weight_decay=True,
            beta2=0.9, update_freq=2, start_preconditioning_step=3, before_first_root="wait", order=3,
            grafting="rmsprop", grafting_beta2=0.95, grafting_eps=1e-3, max_preconditioner_dim=3, blocking=True,
            layout="in_out", maximize=True, max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
MOVING = {"Shampoo": SHORT}
STATEFUL = {"Shampoo": dict(momentum=0.9, **SHORT)}


def of_side(side):
    """The shape of what belongs to one side."""

    def shape_of(shape, **options):
        return sides(shape, **options).get(side)

    return shape_of


SCOPES = {"Shampoo": {f"{side}{of}": of_side(side) for side in ("left", "right") for of in ("", "_root")}}
