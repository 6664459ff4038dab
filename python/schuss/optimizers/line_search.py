"""A line search for the strong Wolfe conditions, with cubic interpolation. It knows no optimizer and no arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

_DECREASE, _CURVATURE = 1e-4, 0.9


class Point(NamedTuple):
    """A point on the line: how far along it, its loss, its slope, and its gradient."""

    at: float
    loss: float
    slope: float
    gradient: Any


def strong_wolfe(
    evaluate: Callable[[float], Point], start: Point, first: float, *, length: float, least: float, most: float
) -> Point:
    """A point that satisfies both conditions, or the best that was found.

    `first` is where to look first, `length` the largest element of the direction, and intervals in which no element
    changes by `least` are not divided further. There are at most `most` evaluations besides the first.
    """
    low, high, count = _bracket(evaluate, start, first, most)
    return low if high is None else _zoom(evaluate, start, low, high, count, length, least, most)


def _bracket(
    evaluate: Callable[[float], Point], start: Point, first: float, most: float
) -> tuple[Point, Point | None, int]:
    """Goes further until two points enclose one that satisfies both conditions.

    Returns the points and the number of evaluations; instead of the second None if the first satisfies them.
    """
    before, here, count = start, evaluate(first), 1
    while count <= most:
        if _too_high(here, start) or (count > 2 and here.loss >= before.loss):
            return before, here, count
        if _is_flat(here, start):
            return here, None, count
        if here.slope >= 0:
            return before, here, count
        bounds = here.at + 0.01 * (here.at - before.at), here.at * 10
        before, here = here, evaluate(_minimum(before, here, bounds))
        count += 1
    return start, here, count


def _zoom(
    evaluate: Callable[[float], Point],
    start: Point,
    low: Point,
    high: Point,
    count: int,
    length: float,
    least: float,
    most: float,
) -> Point:
    """Divides the interval between two points until one satisfies both conditions, or the interval is too short."""
    if high.loss < low.loss:
        low, high = high, low
    slow = False
    while count <= most and abs(high.at - low.at) * length >= least:
        left, right = sorted((low.at, high.at))
        # The points in the order in which they are on the line.
        one, other = (low, high) if low.at == left else (high, low)
        at, margin = _minimum(one, other, (left, right)), 0.1 * (right - left)
        if min(right - at, at - left) < margin:
            # Twice near the same end: the interval shrinks too slowly.
            if slow or at >= right or at <= left:
                at, slow = (right - margin if abs(at - right) < abs(at - left) else left + margin), False
            else:
                slow = True
        else:
            slow = False
        here, count = evaluate(at), count + 1
        if _too_high(here, start) or here.loss >= low.loss:
            high = here
            if high.loss < low.loss:
                low, high = high, low
            continue
        if _is_flat(here, start):
            return here
        if here.slope * (high.at - low.at) >= 0:
            high = low
        low = here
    return low


def _is_flat(here: Point, start: Point) -> bool:
    return abs(here.slope) <= -_CURVATURE * start.slope


def _too_high(here: Point, start: Point) -> bool:
    return here.loss > start.loss + _DECREASE * here.at * start.slope


def _minimum(one: Point, other: Point, bounds: tuple[float, float]) -> float:
    """Where the cubic through two points with their slopes is lowest, within bounds; their middle if it has none."""
    middle = (bounds[0] + bounds[1]) / 2.0
    width = other.at - one.at
    if width == 0:
        return middle
    mean = one.slope + other.slope - 3 * (one.loss - other.loss) / (one.at - other.at)
    square = mean * mean - one.slope * other.slope
    if not square >= 0:
        return middle
    root = math.sqrt(square)
    left, right = (one, other) if width >= 0 else (other, one)
    below = right.slope - left.slope + 2 * root
    above = right.slope + root - mean
    if below == 0:  # the loss is a line, whose lowest point is at an end
        return middle if above == 0 else bounds[above < 0]
    at = right.at - abs(width) * (above / below)
    return min(max(at, bounds[0]), bounds[1])
