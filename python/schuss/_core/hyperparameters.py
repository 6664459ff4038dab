"""Types of hyperparameters: which values an annotation on a class allows.

``float`` is a finite number >= 0, ``bool`` a flag, ``int`` a whole number >= 1, ``Literal`` a choice, ``tuple[float,
float]`` a pair, and a tuple of three as many numbers; ``| None`` allows None too, also inside a tuple, and ``|
Callable`` a schedule of such values. ``Annotated[float, Range(...)]`` has another range, and a function in
``Annotated`` is the check itself. Nothing here knows an optimizer class.
"""

from __future__ import annotations

import functools
import math
import operator
import types
from collections import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from schuss._core import validate


class Range(NamedTuple):
    """The range of a number, or of every number of a tuple; ``closed_high`` without ``high`` allows infinity."""

    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    closed_high: bool = False

    @property
    def words(self) -> str:
        """The condition in words."""
        return validate.interval(self.low, self.high, open_low=self.open_low, closed_high=self.closed_high)


#: A learning rate, or a schedule: a callable from the step to a rate.
if TYPE_CHECKING:  # an attribute of this type takes schedules, and is a number when it is read
    Rate = float | Any
else:
    Rate = Annotated[float | Callable[[int], float], validate.rate]
#: A number in [0, 1).
Fraction = Annotated[float, Range(high=1.0)]
#: A number in [0, 1].
ClosedFraction = Annotated[float, Range(high=1.0, closed_high=True)]
#: A pair of numbers in [0, 1).
Pair = Annotated[tuple[float, float], Range(high=1.0)]
#: Weight decay, a number >= 0, or a schedule of it.
WeightDecay = Annotated[float | Callable[[int], float], Range()]
#: A momentum in [0, 1), or a schedule of it.
Momentum = Annotated[float | Callable[[int], float], Range(high=1.0)]
#: A pair of numbers in [0, 1), or a schedule of them.
Betas = Annotated[tuple[float, float] | Callable[[int], tuple[float, float]], Range(high=1.0)]
#: Three numbers in [0, 1), or a schedule of them.
Betas3 = Annotated[tuple[float, float, float] | Callable[[int], tuple[float, float, float]], Range(high=1.0)]
#: A number above 0.
Positive = Annotated[float, Range(open_low=True)]
#: A finite number <= 0.
Falling = Annotated[float, Range(low=-math.inf, high=0.0, open_low=True, closed_high=True)]
#: A bound > 0; infinity means no bound.
Bound = Annotated[float, Range(open_low=True, closed_high=True)]
#: A factor by which something grows at most; infinity means no bound.
Growth = Annotated[float, Range(low=1.0, closed_high=True)]
#: The form of cautious updates, or none.
Cautious = Literal["mean", "plus_one"] | None
#: A random seed.
Seed = Annotated[int, validate.seed]
#: Which axes of an array of weights are inputs and outputs: ``(...k, in, out)`` or ``(out, in, k...)``.
Layout = Literal["in_out", "out_in"]

_TUPLES = {2: "a pair of", 3: "three"}


@functools.cache
def check_of(hint: Any, limits: Range | None = None) -> validate.Check:
    """The check for a type; raises `TypeError` for a type that no hyperparameter can have."""
    arguments = get_args(hint)
    if get_origin(hint) is Annotated:
        for note in arguments[1:]:
            if isinstance(note, (types.FunctionType, validate.Schedulable)):
                return note
            limits = note if isinstance(note, Range) else limits
        return check_of(arguments[0], limits)
    if hint is bool:
        return validate.flag
    if hint is int:
        return functools.partial(validate.whole_number, low=int(limits.low) if limits else 1)
    if get_origin(hint) is Literal:
        return validate.choice(*arguments)
    numbers = limits or Range()
    if hint is float:
        return functools.partial(validate.number, **numbers._asdict())
    if get_origin(hint) is tuple and len(arguments) in _TUPLES:
        words = [_words(item, numbers) for item in arguments]
        each = f"numbers {words[0]}" if len(set(words)) == 1 else " and ".join(f"a number {word}" for word in words)
        checks = [check_of(item, limits) for item in arguments]
        return lambda place, value: validate.several(place, value, f"{_TUPLES[len(checks)]} {each}", checks)
    if get_origin(hint) in (Union, types.UnionType) and len(arguments) == 2:
        kind, other = sorted(arguments, key=lambda kind: kind is type(None) or _is_callable(kind))
        check = check_of(kind, limits)
        if _is_callable(other):
            return validate.Schedulable(check)
        if other is not type(None):
            raise TypeError(f"{hint} is not the type of a hyperparameter")
        return lambda place, value: None if value is None else check(place, value)
    raise TypeError(f"{hint} is not the type of a hyperparameter")


def _is_callable(hint: Any) -> bool:
    """Whether it is the type of a schedule."""
    origin: Any = get_origin(hint)
    return origin is abc.Callable


def _words(hint: Any, limits: Range) -> str:
    """The condition that an entry of a tuple has to meet, in words."""
    ranges = [note for note in get_args(hint) if isinstance(note, Range)]
    return (ranges or [limits])[0].words + (" or None" if type(None) in get_args(hint) else "")


def choices_of(hint: Any) -> tuple[Any, ...]:
    """The allowed values of a ``Literal``, with or without None; empty for other types."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(choice for kind in get_args(hint) for choice in choices_of(kind))
    return get_args(hint) if get_origin(hint) is Literal else ()


def plain(hint: Any) -> Any:
    """The type without its range, as signatures show it."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        first, *others = map(plain, get_args(hint))
        return functools.reduce(operator.or_, others, first)
    return hint


#: The check of a layout.
check_layout = check_of(Layout)
