"""The conformance table: every optimizer with every option, alone and in the combinations that matter.

The rows of each optimizer are in its module of `families`; it gets the SHARED rows by itself, and all tests that run
over CASES. Lookahead is there once for each optimizer that it is put around: the keywords of the two together.
"""

from typing import Any, NamedTuple

from families import declared, named
from families.common import schedule

import schuss


class Case(NamedTuple):
    name: str
    optimizer: str
    kwargs: dict[str, Any]

    def __repr__(self):
        return self.name


ROWS: dict[str, dict[str, dict[str, Any]]] = declared("ROWS")

AROUND: dict[str, dict[str, dict[str, Any]]] = {
    "SGD": {
        "momentum": dict(lr=0.1, momentum=0.9, k=3, alpha=0.8),
        "reset": dict(lr=0.1, momentum=0.9, dampening=0.5, k=3, pullback="reset"),
        "pullback": dict(lr=0.1, momentum=0.9, k=3, pullback="pullback"),
        "pullback, schedule": dict(lr=schedule, momentum=0.9, momentum_form="velocity", k=2, pullback="pullback"),
        "k 1, alpha 1": dict(lr=0.1, momentum=0.9, k=1, alpha=1.0),
    },
    "Adagrad": {"reset": dict(lr=0.1, lr_decay=0.1, initial_accumulator_value=0.5, k=3, pullback="reset")},
    "AdamW": {
        "reset": dict(lr=0.01, weight_decay=0.1, k=3, pullback="reset"),
        "pullback": dict(lr=0.01, amsgrad=True, betas=(0.9, 0.9), k=3, alpha=0.25, pullback="pullback"),
    },
    "NAG": {"pullback": dict(lr=0.1, form="ema", k=2, pullback="pullback")},
    "LAMB": {"pullback": dict(lr=0.01, max_grad_norm=None, k=3, pullback="pullback")},
    "Lion": {"pullback": dict(lr=0.01, k=3, pullback="pullback")},
    "NovoGrad": {"reset": dict(lr=0.01, k=3, pullback="reset")},
    "Adafactor": {"reset": dict(lr=0.1, k=3, pullback="reset")},
}

# What every optimizer must do, new ones included.
SHARED: dict[str, dict[str, Any]] = {
    "schedule": dict(lr=schedule),
    "maximize": dict(maximize=True),
    "clipped": dict(max_grad_norm=1.0),
    "skip": dict(nonfinite="skip"),
}


# Options with which an optimizer moves, and with which it keeps state, where the defaults are not such.
MOVING = declared("MOVING")
STATEFUL = MOVING | declared("STATEFUL")
STATEFUL["Lookahead(SGD)"] = STATEFUL["SGD"]


def shared_rows(optimizer: str) -> dict[str, dict[str, Any]]:
    return {row: MOVING.get(optimizer, {}) | kwargs for row, kwargs in SHARED.items()}


# State that takes less memory. Master copies are for parameters of two bytes: test_small_state.py has them.
SMALL: dict[str, dict[str, Any]] = {
    "bfloat16 state": dict(state_dtype="bfloat16", state_seed=3, master_weights=False),
    "bfloat16 state, nearest": dict(state_dtype="bfloat16", state_rounding="nearest"),
    "int8 state": dict(state_dtype="int8", state_seed=7),
}

# Optimizers whose state can be int8.
INT8 = named("INT8") | {f"Lookahead({name})" for name in ("SGD", "AdamW")}


def small_rows(optimizer: str) -> dict[str, dict[str, Any]]:
    """Of those that keep state; Newton has none, and no such options."""
    if optimizer == "Newton":
        return {}
    return {
        row: STATEFUL.get(optimizer, {}) | kwargs
        for row, kwargs in SMALL.items()
        if row != "int8 state" or optimizer in INT8
    }


# What has no default, and what else rows have that do not say it.
REQUIRED = declared("REQUIRED")
GIVEN = REQUIRED | declared("GIVEN")

# In the order of the package's registry.
ORDER = sorted(ROWS, key=list(schuss.OPTIMIZERS).index)

CASES = [
    Case(f"{optimizer}: {row}", optimizer, GIVEN.get(optimizer, {}) | kwargs)
    for optimizer, rows in (
        {name: ROWS[name] for name in ORDER} | {f"Lookahead({name})": rows for name, rows in AROUND.items()}
    ).items()
    for row, kwargs in (rows | shared_rows(optimizer) | small_rows(optimizer)).items()
]
