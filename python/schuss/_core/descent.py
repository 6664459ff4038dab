"""The base of optimizers that find a direction themselves and go along it by the rule of gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schuss._core.declaration import InitVar, option
from schuss._core.hyperparameters import Seed
from schuss._core.optimizer import Optimizer
from schuss._core.options import Rounding, StateDtype
from schuss._core.rules import RULES


class Descent(Optimizer):
    """The base of optimizers whose rule is that of gradient descent, without momentum or weight decay."""

    # Arrays have no state, so it has no format.
    state_dtype: InitVar[StateDtype | None] = option(default=None, kw_only=True, init=False)
    state_rounding: InitVar[Rounding] = option(default="stochastic", kw_only=True, init=False)
    state_seed: InitVar[Seed] = option(default=0, kw_only=True, init=False)
    master_weights: InitVar[bool] = option(default=False, kw_only=True, init=False)

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "sgd"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return dict.fromkeys(RULES["sgd"].hypers, 0.0)
