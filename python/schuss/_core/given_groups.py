"""Groups of parameters as users give them: dicts with the key ``params``. Knows no optimizer."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from schuss._arrays import trees
from schuss._core.declaration import Field


def is_group(entry: Any) -> bool:
    """Whether `entry` is a group dict as constructors take it."""
    return isinstance(entry, Mapping) and "params" in entry


def are_groups(params: Any) -> bool:
    """Whether parameters are given as a list of groups; raises if only some of its entries are groups."""
    if not isinstance(params, (list, tuple)):
        return False
    if not any(map(is_group, params)):
        for i, entry in enumerate(params):
            if isinstance(entry, Mapping) and isinstance(entry.get("lr"), numbers.Real):
                raise TypeError(f"params[{i}] has an lr, but not the key 'params', which has the arrays of a group")
        return False
    for i, entry in enumerate(params):
        if not is_group(entry):
            raise TypeError(f"params[{i}] must be a dict with a 'params' key, like the other groups")
    return True


def listed(params: Any) -> Any:
    """Parameters that can be read several times: with lists in the place of iterators, also in groups."""
    params = trees.listed(params)
    if not isinstance(params, (list, tuple)) or not any(map(is_group, params)):
        return params
    return [listed_group(entry) if is_group(entry) else entry for entry in params]


def listed_group(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group whose parameters can be read several times."""
    return {**group, "params": trees.listed(group["params"])}


def check_group(entry: Any) -> None:
    """Raises unless `entry` is a group dict."""
    if not is_group(entry):
        got = "one without" if isinstance(entry, Mapping) else trees.kind(entry)
        raise TypeError(f"a group is a dict with a 'params' key, got {got}")


def refuse_whole(group: int, names: Iterable[str], parameters: Mapping[str, Field]) -> None:
    """Raises if a group has an option that cannot differ between groups."""
    for name in names:
        if name in parameters and parameters[name].whole:
            raise TypeError(f"param_groups[{group}] has {name!r}, which is for the optimizer as a whole")


def without_params(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A group's hyperparameters."""
    return {name: value for name, value in entry.items() if name != "params"}
