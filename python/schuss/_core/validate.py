"""Hyperparameters: which values each may have. One table for constructors, groups and assignments."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

Check = Callable[[str, Any], Any]
_LARGEST = float(np.finfo(np.float32).max)


def number(
    place: str,
    value: Any,
    low: float = 0.0,
    high: float = math.inf,
    *,
    open_low: bool = False,
    closed_high: bool = False,
) -> float:
    """The value as a float in `[low, high)`; either end can be the other kind."""
    least, most = ">" if open_low else ">=", "<=" if closed_high else "<"
    allowed = f"a number {least} {low:g}" + ("" if high == math.inf else f" and {most} {high:g}")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{place} must be {allowed}, got {value!r}")
    try:
        result = float(value)
    except OverflowError:  # an integer beyond float64
        result = math.inf
    if not (low < result if open_low else low <= result) or not (result <= high if closed_high else result < high):
        raise ValueError(f"{place} must be {allowed}, got {value!r}")
    return result


def _rate(place: str, value: Any) -> Any:
    if callable(value) and not isinstance(value, type):  # a class is a schedule that was not made
        return value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{place} must be a number >= 0 or a callable of the step, got {value!r}")
    return number(place, value)


def _fraction(place: str, value: Any) -> float:
    return number(place, value, high=1.0)


def _pair(place: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list, np.ndarray)) or getattr(value, "ndim", 1) != 1 or len(value) != 2:
        raise TypeError(f"{place} must be a pair of numbers >= 0 and < 1, got {value!r}")
    return _fraction(f"{place}[0]", value[0]), _fraction(f"{place}[1]", value[1])


def flag(place: str, value: Any) -> bool:
    """The value as a bool, which it must be."""
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
    "dampening": lambda place, value: number(place, value, high=1.0, closed_high=True),
    "weight_decay": number,
    "eps": number,
    "betas": _pair,
    "alpha": _fraction,
    "lr_decay": number,
    "initial_accumulator_value": number,
    "initial_square_avg": number,
    "nesterov": flag,
    "maximize": flag,
    "debias": flag,
    "amsgrad": flag,
    "bias_correction": flag,
    "centered": flag,
    "eps_inside_sqrt": flag,
    "lr_in_momentum": flag,
    "momentum_form": choice("heavy_ball", "velocity", "ema"),
    "eps_form": choice("torch", "keras"),
    "decay_form": choice("lr", "independent"),
    "decoupled_weight_decay": flag,
    "threshold": lambda place, value: number(place, value, low=4.0),
    "unrectified": choice("sgd", "frozen"),
    "trust_coefficient": number,
    "trust_clip": flag,
    "always_adapt": flag,
    "adapt": flag,
    "grad_averaging": flag,
    "form": choice("heavy_ball", "ema"),
    "lookahead": lambda place, value: None if value is None else number(place, value),
    "damping": number,
    "fallback": choice("damp", "error"),
    "gradient_centralization": flag,
    "gc_conv_only": flag,
}


def scheduled_rate(place: str, schedule: Callable[[int], Any], step: int) -> float:
    """What a schedule says for a step, checked."""
    value = schedule(step)
    rate = plain(value)
    if rate is None or not 0.0 <= rate < math.inf:
        error = TypeError if rate is None else ValueError
        raise error(f"{place} returned {value!r} at step {step}; it must return a number >= 0")
    return rate


def plain(value: Any) -> float | None:
    """The value as a float, or None when it is no number; `float` itself would take strings and booleans."""
    try:
        return None if isinstance(value, (str, bytes, bool, np.bool_)) else float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def whole(value: Any) -> int | None:
    """The value as an int, or None when it is no whole number."""
    try:
        return None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:  # also of arrays and classes, which have an __index__ that refuses
        return None


def grad_scale(value: Any) -> float:
    """What gradients are divided by: a number whose inverse, by which they are multiplied, is one in float32 too."""
    scale = plain(value) if isinstance(value, numbers.Real) else None
    if scale is not None and 0 < scale < math.inf and 1 / scale <= _LARGEST:
        return scale
    error = TypeError if scale is None else ValueError
    raise error(f"grad_scale must be a finite number > 0 whose inverse is finite in float32, got {value!r}")


def seed(place: str, value: Any) -> int:
    """The value as a seed, which it must be."""
    wrong = f"{place} must be a whole number >= 0 and < 2**64, got {value!r}"
    result = whole(value)
    if result is None:
        raise TypeError(wrong)
    if not 0 <= result < 2**64:
        raise ValueError(wrong)
    return result


def max_norm(place: str, value: Any) -> float | None:
    """A bound on the norm of gradients, or None."""
    return None if value is None else number(place, value, open_low=True, closed_high=True)


def _count(place: str, value: Any) -> int:
    count = whole(value)
    if count is None or count < 1:
        raise ValueError(f"{place} must be a whole number >= 1, got {value!r}")
    return count


# What is not a group's but the optimizer's as a whole; the last three where there are slow weights.
SETTINGS: dict[str, Check] = {
    "max_grad_norm": max_norm,
    "nonfinite": choice("propagate", "skip", "error"),
    "k": _count,
    "alpha": lambda place, value: number(place, value, open_low=True, high=1.0, closed_high=True),
    "pullback": choice("none", "reset", "pullback"),
}
