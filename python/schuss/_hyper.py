"""Hyperparameters: which values each may have. One table for constructors, groups and assignments."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

Check = Callable[[str, Any], Any]


def number(place: str, value: Any, low: float = 0.0, high: float = math.inf, *, open_low: bool = False) -> float:
    """The value as a float in `[low, high)`, or in `(low, high)`."""
    least = f"> {low:g}" if open_low else f">= {low:g}"
    allowed = f"a number {least}" if high == math.inf else f"a number {least} and < {high:g}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{place} must be {allowed}, got {value!r}")
    result = float(value)
    if not (low < result if open_low else low <= result) or not result < high:
        raise ValueError(f"{place} must be {allowed}, got {value!r}")
    return result


def _rate(place: str, value: Any) -> Any:
    if callable(value):
        return value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{place} must be a number >= 0 or a callable of the step, got {value!r}")
    return number(place, value)


def _fraction(place: str, value: Any) -> float:
    return number(place, value, high=1.0)


def _pair(place: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != 2:
        raise TypeError(f"{place} must be a pair of numbers >= 0 and < 1, got {value!r}")
    return _fraction(f"{place}[0]", value[0]), _fraction(f"{place}[1]", value[1])


def _flag(place: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{place} must be True or False, got {value!r}")
    return bool(value)


def choice(*names: str) -> Check:
    """A check for one of these strings."""

    def check(place: str, value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            error = ValueError if isinstance(value, str) else TypeError
            raise error(f"{place} must be {' or '.join(repr(name) for name in names)}, got {value!r}")
        return value

    return check


CHECKS: dict[str, Check] = {
    "lr": _rate,
    "momentum": _fraction,
    "dampening": lambda place, value: number(place, value, high=math.nextafter(1.0, 2.0)),
    "weight_decay": number,
    "eps": number,
    "betas": _pair,
    "alpha": _fraction,
    "lr_decay": number,
    "initial_accumulator_value": number,
    "initial_square_avg": number,
    "nesterov": _flag,
    "maximize": _flag,
    "debias": _flag,
    "amsgrad": _flag,
    "bias_correction": _flag,
    "centered": _flag,
    "eps_inside_sqrt": _flag,
    "lr_in_momentum": _flag,
    "momentum_form": choice("heavy_ball", "velocity", "ema"),
    "eps_form": choice("torch", "keras"),
    "decay_form": choice("lr", "independent"),
}


def scheduled_rate(place: str, schedule: Callable[[int], Any], step: int) -> float:
    """What a schedule says for a step, checked."""
    value = schedule(step)
    try:
        rate = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{place} returned {value!r} at step {step}; it must return a number >= 0") from error
    if not 0.0 <= rate < math.inf:
        raise ValueError(f"{place} returned {value!r} at step {step}; it must return a number >= 0")
    return rate


def max_norm(value: Any) -> float | None:
    """A bound on the norm of gradients, or None."""
    if value is None or (isinstance(value, float) and value == math.inf):
        return value
    return number("max_grad_norm", value, open_low=True)


nonfinite = choice("propagate", "skip", "error")
