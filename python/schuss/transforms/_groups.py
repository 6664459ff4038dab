"""Groups with learning rates of their own, made from the paths of arrays. It knows no optimizer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from schuss._arrays import trees
from schuss._core import validate
from schuss.schedules import scale

#: Keys and indices as paths have them. As a regular expression each would be a set of characters.
_PART_OF_A_PATH = re.compile(r"""(\[('[^']*'|"[^"]*"|0|-?[1-9]\d*)\])+""")


def _search(pattern: str, place: str) -> bool:
    try:
        return re.search(pattern, place) is not None
    except re.error as why:
        raise ValueError(f"factors[{pattern!r}] is neither a part of {place} nor a regular expression: {why}") from None


def layer_lrs(params: Any, factors: Mapping[str, float], lr: Any) -> list[dict[str, Any]]:
    """Groups with a learning rate of their own for each layer, for any optimizer.

    Parameters
    ----------
    params : array, list, tuple or dict
        The parameters.
    factors : dict
        What `lr` is multiplied by, >= 0, for parts of an array's path, such as ``"['encoder'][0]"`` for the path
        ``['encoder'][0]['w']``. What is a part of no path is a regular expression, which is searched for; it must
        escape brackets. The first one that is found counts; arrays without any have `lr` itself. For decay by layer,
        let the factor of layer l of L be ``decay ** (L - l)``.
    lr : float or callable
        The learning rate, or a schedule.

    Returns
    -------
    list of dict
        A group dict for each factor in use, whose ``params`` are a dict from an array's path to the array; pass
        gradients in the same structure.

    Raises
    ------
    TypeError, ValueError
        An argument is not such a value, or a pattern of `factors` is found in no path.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> from schuss import transforms
    >>> params, factors = {"body": np.ones(2), "head": np.ones(2)}, {"body": 0.5}
    >>> groups = transforms.layer_lrs(params, factors, lr=0.1)
    >>> [(list(group["params"]), group["lr"]) for group in groups]
    [(["['body']"], 0.05), (["['head']"], 0.1)]

    Gradients in the structure of `params` get that of the groups from the same function, if none is None:

    >>> opt = schuss.Adam(groups)
    >>> grads = {"body": np.ones(2), "head": np.ones(2)}
    >>> opt.step([group["params"] for group in transforms.layer_lrs(grads, factors, lr=0.1)])
    True
    """
    if not isinstance(factors, Mapping):
        raise TypeError(f"factors must be a dict from patterns to factors, got {trees.kind(factors)}")
    rate: Any = validate.rate("lr", lr)
    for pattern in factors:
        if not isinstance(pattern, str):
            raise TypeError(f"the patterns of factors must be strings, got {pattern!r}")
    checked = [(pattern, validate.number(f"factors[{pattern!r}]", value)) for pattern, value in factors.items()]
    _, leaves = trees.flatten(trees.listed(params), "params")
    trees.check_paths("params", leaves)
    found_as_it_is = {pattern for pattern in factors if any(pattern in place for place, _ in leaves)}

    def has(place: str, pattern: str) -> bool:
        if pattern in found_as_it_is or _PART_OF_A_PATH.fullmatch(pattern):
            return pattern in place
        return _search(pattern, place)

    for pattern in factors if leaves else ():
        if not any(has(place, pattern) for place, _ in leaves):
            raise ValueError(
                f"factors has {pattern!r}, but no array has it in its path (the first is {leaves[0][0]}); correct it "
                "or leave it out"
            )
    groups: dict[float, dict[str, Any]] = {}
    for place, array in leaves:
        found = (value for pattern, value in checked if has(place, pattern))
        groups.setdefault(next(found, 1.0), {})[place] = array

    def times(factor: float) -> Any:
        if factor == 1.0:
            return rate
        return scale(rate, factor) if validate.is_schedule(rate) else rate * factor

    return [{"params": own, "lr": times(factor)} for factor, own in groups.items()]
