"""The conformance table: every optimizer with every option, alone and in the combinations that matter.

A new optimizer needs an entry in ROWS here and its equations in reference.py; it gets the SHARED rows by itself, and
all tests that run over CASES.
"""

from typing import Any, NamedTuple


class Case(NamedTuple):
    name: str
    optimizer: str
    kwargs: dict[str, Any]

    def __repr__(self):
        return self.name


def schedule(step):
    """A learning rate with warm-up and decay; `step` counts from 0. A named function, so that it can be pickled."""
    return 0.05 * min(1.0, (step + 1) / 4) * 0.9**step


ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "SGD": {
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
    },
    "Adagrad": {
        "defaults": {},
        "lr": dict(lr=0.1),
        "lr_decay": dict(lr=0.1, lr_decay=0.1),
        "decay": dict(lr=0.1, weight_decay=0.1),
        "accumulator": dict(lr=0.1, initial_accumulator_value=0.5),
        "eps": dict(lr=0.1, eps=1e-2),
        "eps inside": dict(lr=0.1, eps=1e-2, eps_inside_sqrt=True),
        "keras": dict(lr=0.1, initial_accumulator_value=0.1, eps=1e-7, eps_inside_sqrt=True),
        "all": dict(
            lr=schedule, lr_decay=0.05, weight_decay=0.1, initial_accumulator_value=0.2, eps=1e-3, eps_inside_sqrt=True,
            maximize=True, max_grad_norm=3.0,
        ),
    },
    "RMSprop": {
        "defaults": {},
        "alpha": dict(lr=0.01, alpha=0.9),
        "eps": dict(lr=0.01, eps=1e-2),
        "eps inside": dict(lr=0.01, eps=1e-2, eps_inside_sqrt=True),
        "decay": dict(lr=0.01, weight_decay=0.1),
        "square_avg": dict(lr=0.01, initial_square_avg=1.0),
        "momentum": dict(lr=0.01, momentum=0.9),
        "momentum, schedule": dict(lr=schedule, momentum=0.9),
        "lr in momentum": dict(lr=0.01, momentum=0.9, lr_in_momentum=True),
        "lr in momentum, schedule": dict(lr=schedule, momentum=0.9, lr_in_momentum=True),
        "lr in momentum, no momentum": dict(lr=0.01, lr_in_momentum=True),
        "centered": dict(lr=0.01, centered=True),
        "centered, eps inside": dict(lr=0.01, centered=True, eps=1e-2, eps_inside_sqrt=True),
        "centered, decay, square_avg": dict(lr=0.01, centered=True, weight_decay=0.1, initial_square_avg=0.5),
        "centered, momentum": dict(lr=0.01, centered=True, momentum=0.5),
        "tensorflow": dict(
            lr=0.01, alpha=0.9, momentum=0.9, eps=1e-7, initial_square_avg=1.0, eps_inside_sqrt=True,
            lr_in_momentum=True,
        ),
        "all": dict(
            lr=schedule, alpha=0.95, eps=1e-3, weight_decay=0.1, momentum=0.8, centered=True, eps_inside_sqrt=True,
            lr_in_momentum=True, initial_square_avg=0.1, maximize=True, max_grad_norm=3.0,
        ),
    },
}  # fmt: skip

ADAM = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.95)),
    "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
    "eps": dict(lr=0.01, eps=1e-2),
    "decay": dict(lr=0.01, weight_decay=0.1),
    "no decay": dict(lr=0.01, weight_decay=0.0),
    "amsgrad": dict(lr=0.01, amsgrad=True, betas=(0.9, 0.9)),
    "amsgrad, decay, maximize": dict(lr=0.01, amsgrad=True, weight_decay=0.1, maximize=True),
    "uncorrected": dict(lr=0.01, bias_correction=False),
    "uncorrected, amsgrad": dict(lr=0.01, bias_correction=False, amsgrad=True, betas=(0.9, 0.9)),
    "keras": dict(lr=0.01, eps_form="keras", eps=1e-2),
    "keras, amsgrad": dict(lr=0.01, eps_form="keras", eps=1e-3, amsgrad=True, betas=(0.9, 0.9)),
    "keras, uncorrected": dict(lr=0.01, eps_form="keras", eps=1e-2, bias_correction=False),
    "all": dict(
        lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, amsgrad=True, eps_form="keras", maximize=True,
        max_grad_norm=3.0,
    ),
}  # fmt: skip

ROWS["Adam"] = ADAM
ROWS["AdamW"] = ADAM | {
    "decay, schedule": dict(lr=schedule, weight_decay=0.3),
    "independent": dict(lr=0.01, weight_decay=0.05, decay_form="independent"),
    "independent, schedule": dict(lr=schedule, weight_decay=0.05, decay_form="independent"),
    "independent, amsgrad, keras": dict(
        lr=schedule, weight_decay=0.05, decay_form="independent", amsgrad=True, eps_form="keras"
    ),
}

# What every optimizer must do, new ones included.
SHARED: dict[str, dict[str, Any]] = {
    "schedule": dict(lr=schedule),
    "maximize": dict(maximize=True),
    "clipped": dict(max_grad_norm=1.0),
    "skip": dict(nonfinite="skip"),
}

CASES = [
    Case(f"{optimizer}: {row}", optimizer, kwargs)
    for optimizer, rows in ROWS.items()
    for row, kwargs in (rows | SHARED).items()
]
