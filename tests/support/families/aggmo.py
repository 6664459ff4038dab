"""AggMo."""

from families.common import decayed, schedule


def aggmo(s, p, g, t, *, lr=1e-3, betas=(0.0, 0.9, 0.99), weight_decay=0.0, decoupled_weight_decay=False):
    p, g = decayed(p, g, lr, weight_decay, decoupled_weight_decay)
    for i, beta in enumerate(betas, start=1):
        s[f"b{i}"] = beta * s.get(f"b{i}", 0) + g
    return p - lr / len(betas) * sum(s.values())


ROWS = {
    "AggMo": {
        "defaults": {},
        "lr": dict(lr=0.1),
        "two": dict(lr=0.1, betas=(0.5, 0.9)),
        "four": dict(lr=0.1, betas=(0.0, 0.5, 0.9, 0.99)),
        "decay": dict(lr=0.1, weight_decay=0.1),
        "decoupled": dict(lr=0.1, weight_decay=0.3, decoupled_weight_decay=True),
        "all": dict(
            lr=schedule, betas=(0.1, 0.7, 0.8), weight_decay=0.1, decoupled_weight_decay=True, maximize=True,
            max_grad_norm=3.0,
        ),
    }
}  # fmt: skip
INT8 = {"AggMo"}
