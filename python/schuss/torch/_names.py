"""What torch.optim's optimizers call their states: their checkpoints and ours load into each other.

An optimizer that torch does not have keeps the names of the package. So do LBFGS, whose state is another, and Muon: the
``adjust_lr_fn`` that torch saves, None, would be another step here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq", "vmax": "max_exp_avg_sq"}

#: By class: our name of a state, and torch's where it differs.
NAMES: Mapping[str, Mapping[str, str]] = {
    "Adadelta": {"v": "square_avg", "u": "acc_delta"},
    "Adafactor": {"r": "row_var", "c": "col_var", "v": "variance"},
    "Adagrad": {"s": "sum"},
    "Adam": _MOMENTS,
    "AdamW": _MOMENTS,
    "Adamax": {"m": "exp_avg", "u": "exp_inf"},
    "NAdam": _MOMENTS,
    "RAdam": _MOMENTS,
    "RMSprop": {"v": "square_avg", "a": "grad_avg", "b": "momentum_buffer"},
    "Rprop": {"size": "step_size"},
    "SGD": {"b": "momentum_buffer"},
}

#: Names of states in torch's classes, to tell states from a user's own entries; ``func_evals`` is that of LBFGS.
#: Classes that are not above, such as ASGD, save ``step``.
TORCH_STATES = {"func_evals"}.union(*(names.values() for names in NAMES.values()))

#: The classes for which torch saves no step count.
UNCOUNTED = {"SGD"}

#: What torch's class saves besides, from a group's hyperparameters and the step count of a parameter.
BESIDES: Mapping[str, Callable[[Mapping[str, Any], float], Mapping[str, float]]] = {
    "ASGD": lambda group, step: {"mu": 1 / max(1.0, step - group["t0"])},
}

#: The classes whose options torch has in another order: all after the learning rate are keyword-only.
BY_KEYWORD = {"Muon"}
