"""Where arrays are cut, so that all processes have about equally many elements. It knows no MPI and no optimizer."""

from __future__ import annotations

from collections.abc import Sequence


def shares(loads: Sequence[int], count: int) -> list[int]:
    """How many of `count` new units each process takes, so that their loads in units become as equal as possible."""
    order = sorted(range(len(loads)), key=lambda rank: (loads[rank], rank))
    # The processes below the common level are filled up to it; the others take nothing.
    filled, total = 0, count
    while filled < len(order) and loads[order[filled]] * filled < total:
        total += loads[order[filled]]
        filled += 1
    result = [0] * len(loads)
    for place, rank in enumerate(order[:filled]):
        result[rank] = max(0, (total + filled - 1 - place) // filled - loads[rank])
    excess = sum(result) - count
    for rank in reversed(order[:filled]):
        taken = min(excess, result[rank])
        result[rank] -= taken
        excess -= taken
    return result


def cut(loads: list[int], length: int, size: int) -> list[int]:
    """Where an array is cut, at multiples of `size`: each process has the elements from its place to the next.

    `loads` has the elements of each process so far, and is updated.
    """
    units = shares([load // size for load in loads], -(-length // size))
    places = [0]
    for rank, own in enumerate(units):
        places.append(min(length, places[-1] + own * size))
        loads[rank] += places[-1] - places[-2]
    return places
