"""The groups of a torch optimizer as the package takes them: their options, and what messages call their parameters.

It knows no optimizer of torch and no plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import torch

from schuss._core import given_groups, scheduling, validate
from schuss._core.optimizer import Optimizer
from schuss._core.options import Options

#: The key of a group under which its first learning rate is kept; torch's schedulers write to ``initial_lr``.
FIRST_RATE = "first_lr"
#: The part of ``initial_lr`` below which a negative rate is an error of rounding.
_ROUNDING = 1e-9

#: The key of each group under which is how many steps no parameter has taken: each lacked a gradient in some of them.
MISSED = "missed_steps"


def plain(place: str, value: Any) -> Any:
    """A hyperparameter as the package takes it: a number in the place of a tensor."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(f"{place} is a tensor of shape {tuple(value.shape)}; it must have one element")
        return value.item()
    if isinstance(value, (tuple, list)):
        return tuple(plain(place, entry) for entry in value)
    return value


def hyperparameter(place: str, group: Mapping[str, Any], name: str) -> Any:
    """A hyperparameter of a group as the package takes it; a rounding error of torch's schedulers below 0 is 0."""
    value = plain(place, group[name])
    if name == "lr" and isinstance(value, float) and value < 0 and "initial_lr" in group:
        return 0.0 if value > -_ROUNDING * plain("initial_lr", group["initial_lr"]) else value
    return value


def is_hyperparameter(kind: type[Optimizer], name: str) -> bool:
    """Whether groups may have their own value of it."""
    return name in kind._parameters and not kind._parameters[name].whole


def schedules(kind: type[Optimizer], group: Mapping[str, Any]) -> dict[str, Any]:
    """A group's hyperparameters that are functions of the step."""
    return {name: value for name, value in group.items() if is_hyperparameter(kind, name) and callable(value)}


def keep_schedules(
    kind: type[Optimizer], groups: Sequence[MutableMapping[str, Any]], own: Sequence[Mapping[str, Any]]
) -> scheduling.Loading:
    """Gives groups that were loaded their own schedules again; returns the loading of the states of those saved."""
    loading = scheduling.Loading()
    for g, (group, kept) in enumerate(zip(groups, own, strict=True)):
        saved = schedules(kind, group)
        for name, schedule in kept.items():
            state = scheduling.state(saved[name]) if name in saved else None
            if state is not None and scheduling.state(schedule) is not None:
                loading.add(f"param_groups[{g}][{name!r}]", schedule, state)
        group.update(kept)
    return loading


def refuse_whole(groups: Sequence[Mapping[str, Any]]) -> None:
    """Raises if a group has an option that cannot differ between groups."""
    for g, group in enumerate(groups):
        given_groups.refuse_whole(g, group, Options._parameters)


def place(group: int, i: int, entry: Mapping[str, Any]) -> str:
    """What messages call a parameter: its name, if the model's named parameters were given."""
    names = entry.get("param_names")
    return f"param_groups[{group}]['params'][{i}]" if names is None else f"parameter {names[i]!r}"


def places(groups: Sequence[Mapping[str, Any]], numbers: Sequence[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Every parameter with what messages call it; `numbers` are those of the groups, if they are not all."""
    for g, group in zip(range(len(groups)) if numbers is None else numbers, groups, strict=True):
        for i, param in enumerate(group["params"]):
            yield place(g, i, group), param


def sizes(groups: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """The numbers of keys and of parameters of each group."""
    return [(len(group), len(group["params"])) for group in groups]


def as_steps(where: str, value: Any) -> int:
    """A step count, which torch has as a tensor of floating-point numbers."""
    number = plain(where, torch.as_tensor(value) if isinstance(value, (np.ndarray, np.generic)) else value)
    return validate.steps(where, int(number) if isinstance(number, float) and number.is_integer() else number)


def missed_steps(groups: Sequence[Mapping[str, Any]]) -> int:
    """How many steps no parameter has taken; earlier versions and torch do not save it, and a new group lacks it."""
    kept = [as_steps(f"param_groups[{g}][{MISSED!r}]", group.get(MISSED, 0)) for g, group in enumerate(groups)]
    return max(kept, default=0)


def keep_missed(groups: Sequence[MutableMapping[str, Any]], missed: int) -> None:
    """Keeps in each group how many steps no parameter has taken, if there are any."""
    for group in groups:
        if missed:
            group[MISSED] = missed
        else:
            group.pop(MISSED, None)
