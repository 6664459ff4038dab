"""Hyperparameters that have schedules: their values at a step, with a momentum that the rate's schedule may set.

It knows optimizer classes by their description alone, and neither groups nor arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schuss._core import validate
from schuss._core.kind import Kind


def at(kind: type[Kind], hypers: Mapping[str, Any], step: int, where: str) -> dict[str, Any]:
    """Hyperparameters with the values that schedules, other than lr's, have at a step; `where` begins messages."""
    values = dict(hypers)
    for name, schedule in hypers.items():
        if name != "lr" and callable(schedule):
            check = kind._parameters[name].check
            if isinstance(check, validate.Schedulable):
                value = validate.called(f"{where}{name}", schedule, step)
                values[name] = check.check(f"{where}{name} at step {step}", validate.without_arrays(value))
    return values


def at_step_0(kind: type[Kind], hypers: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Hyperparameters as they are at step 0, but with a momentum above 0 if it has a schedule."""
    return without_zero(hypers, at(kind, hypers, 0, where))


def without_zero(hypers: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values; a momentum of 0 that has a schedule becomes 0.5, since the rule without momentum has no buffer."""
    zero = callable(hypers.get("momentum")) and values["momentum"] == 0
    return {**values, "momentum": 0.5} if zero else values


def with_momentum(hypers: Mapping[str, Any], value: float) -> dict[str, Any]:
    """Hyperparameters with this momentum, or this first of their betas."""
    if "momentum" in hypers:
        return {**hypers, "momentum": value}
    return {**hypers, "betas": (value, *hypers["betas"][1:])}


def check_momentum(kind: type[Kind], hypers: Mapping[str, Any], where: str) -> None:
    """Raises unless there is a momentum for the rate's schedule to set, and the state array that it needs."""
    name = kind._label or kind.__name__
    begin = f"{where}lr is a schedule that sets the momentum too, but"
    other = "use a schedule that does not (one_cycle: momentum=None)"
    if "momentum" not in hypers and "betas" not in hypers:
        raise ValueError(f"{begin} {name} has neither momentum nor betas; {other}")
    if kind._fixed_momentum:
        raise ValueError(f"{begin} {name} {kind._fixed_momentum}; {other}")
    if kind._rule(with_momentum(hypers, 0.5)) != kind._rule(hypers):
        raise ValueError(f"{begin} momentum=0 keeps no buffer for it; make the optimizer with momentum > 0, or {other}")
