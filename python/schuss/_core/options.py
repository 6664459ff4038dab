"""The constructor parameters that all optimizers have, declared once. No subclass is known here.

`maximize` is a hyperparameter, which groups may override; the others apply to the whole optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from schuss._arrays import formats
from schuss._backends.protocol import Nonfinite
from schuss._core.declaration import Declaration, InitVar
from schuss._core.hyperparameters import Bound, Rate, Seed

StateDtype = Literal["float32", "bfloat16", "int8"]
Rounding = Literal["stochastic", "nearest"]


class _Arrays(Declaration):
    params: InitVar[Any]
    if TYPE_CHECKING:  # each class declares its own
        lr: Rate


class _PerGroup(_Arrays, kw_only=True):
    maximize: InitVar[bool] = False


class Options(_PerGroup, kw_only=True, whole=True):
    """The base of `Optimizer` that declares these parameters."""

    max_grad_norm: Bound | None = None
    track_grad_norm: bool = False
    nonfinite: Nonfinite = "propagate"
    state_dtype: InitVar[StateDtype | None] = None
    state_rounding: InitVar[Rounding] = "stochastic"
    state_seed: InitVar[Seed] = 0
    master_weights: InitVar[bool] = False


#: The options that make up the state format, in the order of its fields.
STATE_FORMAT = ("state_dtype", "state_rounding", "state_seed", "master_weights")


def state_format(given: Mapping[str, Any]) -> formats.StateFormat:
    """The state format for the given options, checked as far as possible without arrays; missing ones have defaults."""
    fields = [Options._parameters[name] for name in STATE_FORMAT]
    checked = [field.check(field.name, given.get(field.name, field.default)) for field in fields]
    if checked[0] == "bfloat16":
        formats.bfloat16()
    return formats.StateFormat(*checked)
