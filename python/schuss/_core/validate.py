"""Checks of single values: each returns the value in the form the package needs, or raises and says what is allowed.

Nothing here knows which option has which range; that is declared with the option, on its class.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Sequence
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
    """The value as a float in `[low, high)`; `open_low` and `closed_high` change the ends."""
    allowed = f"a number {interval(low, high, open_low=open_low, closed_high=closed_high)}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{place} must be {allowed}, got {value!r}")
    result = as_float(value)
    if not (low < result if open_low else low <= result) or not (result <= high if closed_high else result < high):
        raise ValueError(f"{place} must be {allowed}, got {value!r}")
    return result


def real(place: str, value: Any, *, finite: bool = True) -> float:
    """The value as a float that is not NaN and, if `finite`, not infinite."""
    wanted = "a finite number" if finite else "a number"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{place} must be {wanted}, got {value!r}")
    result = as_float(value)
    if math.isnan(result) or (finite and math.isinf(result)):
        raise ValueError(f"{place} must be {wanted}, got {value!r}")
    return result


def as_float(value: Any) -> float:
    """The value as a float; an integer beyond float64 is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def interval(low: float, high: float, *, open_low: bool, closed_high: bool) -> str:
    """The condition that a number has to meet, in words."""
    least, most = ">" if open_low else ">=", "<=" if closed_high else "<"
    return f"{least} {low:g}" + ("" if high == math.inf else f" and {most} {high:g}")


def rate(place: str, value: Any) -> Any:
    """The value as a learning rate: a number >= 0, or a schedule as it is."""
    if is_schedule(value):
        return value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        advice = ""
        if isinstance(value, type) and any("__call__" in vars(base) for base in value.__mro__):
            advice = f"; make a schedule of it, {value.__name__}(...)"
        raise TypeError(f"{place} must be a number >= 0 or a callable of the step, got {value!r}{advice}")
    return number(place, value)


class Frozen:
    """The base of frozen dataclasses that check their fields."""

    def _set_checked(self, **checked: Any) -> None:
        """Replaces fields by their checked values, which a frozen dataclass allows only this way."""
        for name, value in checked.items():
            object.__setattr__(self, name, value)


class Schedulable:
    """A check that also allows a schedule, a callable of the step, as it is; `check` is that of its values."""

    def __init__(self, check: Check) -> None:
        self.check = check

    def __call__(self, place: str, value: Any) -> Any:
        """The value, checked."""
        return value if is_schedule(value) else self.check(place, value)


def is_schedule(value: Any) -> bool:
    """Whether it can be called with a step; a class is a schedule that was not instantiated."""
    return callable(value) and not isinstance(value, type)


def whole_number(place: str, value: Any, low: int = 0, high: int | None = None) -> int:
    """The value as an int that is at least `low` and, unless that is None, less than `high`."""
    try:
        result = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:  # also arrays and classes, whose __index__ raises
        result = None
    if result is None or result < low or (high is not None and result >= high):
        below = "" if high is None else f" and < {high if high < 2**32 else f'2**{high.bit_length() - 1}'}"
        error = TypeError if result is None else ValueError
        raise error(f"{place} must be a whole number >= {low}{below}, got {value!r}")
    return result


def steps(place: str, value: Any) -> int:
    """The value as a number of steps."""
    return whole_number(place, value, high=2**63)


def seed(place: str, value: Any) -> int:
    """The value as a seed, an int in [0, 2**64)."""
    return whole_number(place, value, high=2**64)


def several(place: str, value: Any, allowed: str, checks: Sequence[Check]) -> tuple[Any, ...]:
    """The value as a tuple, each entry checked by its own check; `allowed` describes it in messages."""
    if not isinstance(value, (tuple, list, np.ndarray)) or getattr(value, "ndim", 1) != 1 or len(value) != len(checks):
        raise TypeError(f"{place} must be {allowed}, got {value!r}")
    return tuple(check(f"{place}[{i}]", entry) for i, (check, entry) in enumerate(zip(checks, value, strict=True)))


def flag(place: str, value: Any) -> bool:
    """The value, which must be a bool."""
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


def called(place: str, schedule: Callable[[int], Any], step: int) -> Any:
    """What a schedule returns for a step."""
    try:
        return schedule(step)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # it was not even entered
            raise TypeError(f"{place} must be a callable of the step alone: {error}") from None
        raise


def scheduled_rate(place: str, schedule: Callable[[int], Any], step: int) -> float:
    """The rate that a schedule returns for a step, checked."""
    value = called(place, schedule, step)
    rate = plain(value)
    if rate is None or not 0.0 <= rate < math.inf:
        error = TypeError if rate is None else ValueError
        raise error(f"{place} returned {value!r} at step {step}; it must return a number >= 0")
    return rate


def plain(value: Any) -> float | None:
    """The value as a float, or None if it is not a number; `float` takes more, with NumPy 1 also arrays with axes."""
    if isinstance(value, (str, bytes, bool, np.bool_)) or (isinstance(value, np.ndarray) and value.ndim):
        return None
    try:
        return as_float(value)
    except (TypeError, ValueError):
        return None


def without_arrays(value: Any) -> Any:
    """The value with numbers in the place of arrays without axes, which are what schedules of JAX return."""
    if isinstance(value, (tuple, list)):
        return tuple(map(without_arrays, value))
    number = plain(value) if getattr(value, "shape", None) == () else None
    return value if number is None else number


def grad_scale(value: Any) -> float:
    """The divisor of gradients; they are multiplied by its inverse, which must be finite in float32."""
    scale = plain(value) if isinstance(value, numbers.Real) else None
    if scale is not None and 0 < scale < math.inf and 1 / scale <= _LARGEST:
        return scale
    error = TypeError if scale is None else ValueError
    raise error(f"grad_scale must be a finite number > 0 whose inverse is finite in float32, got {value!r}")
