"""State as plain dicts, and copies of an optimizer. Loading is left to `loading`, files to :mod:`schuss.checkpoint`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schuss._arrays import checks, trees
from schuss._core import scheduling
from schuss._core.given_groups import is_group

if TYPE_CHECKING:
    from schuss._core.optimizer import Optimizer

#: What stands for a schedule, which is a function and is not saved.
SCHEDULE = "schedule"


def scalars(optimizer: Optimizer) -> dict[str, Any]:
    """The part of a state that is not arrays; every value is JSON-serializable."""
    counters = optimizer._read_counters()
    groups, first = [], 0
    for group, step in zip(optimizer.param_groups, counters.groups, strict=True):
        entry = group.hypers
        for key, value in entry.items():
            if callable(value):
                kept = scheduling.state(value)
                entry[key] = SCHEDULE if kept is None else {SCHEDULE: kept}
        if optimizer._by_first_rate(entry) is not None:
            entry["initial_lr"] = group.initial_lr
        entry["step"] = step
        end = first + len(group.arrays)
        missed = zip(optimizer._suffixes[first:end], counters.missed[first:end], strict=False)
        if any(counters.missed[first:end]):
            entry["missed_steps"] = {suffix: times for (_, suffix), times in missed if times}
        first = end
        groups.append(entry)
    return {
        "optimizer": optimizer._name(),
        "step": counters.steps,
        "skipped_steps": counters.skipped,
        **{name: optimizer._option(name) for name in optimizer._settings},
        **format_options(optimizer),
        "param_groups": groups,
    }


def format_options(optimizer: Optimizer) -> dict[str, Any]:
    """The state format, if it is not the plain one; int8 scales depend on the parameters' memory order."""
    kept = optimizer._state_format.as_dict()
    if optimizer._state_format.dtype == "int8":
        kept["memory_order"] = "".join(map(checks.order, optimizer._params))
    return kept


def state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """See :meth:`schuss.Optimizer.state_dict`."""
    result = scalars(optimizer)  # first: it orders the GPU work that follows after the steps taken
    state = []
    named = named_states(optimizer)
    for template in optimizer._templates:
        arrays = {}
        for name in names_of(template, named):
            views = [checks.shown(own[name]) if name in own else None for own in named]
            arrays[name] = trees.build(template, views.__getitem__)
        state.append(arrays)
    if optimizer._shared:
        result["shared"] = {name: value.view() for name, value in optimizer._shared.items()}
    return {**result, "state": state}


def named_states(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The state arrays of each parameter by name."""
    states = optimizer._states  # read once: Lookahead builds a new list at each access
    return [dict(zip(optimizer._state_names(i), own, strict=True)) for i, own in enumerate(states)]


def names_of(template: Any, named: list[dict[str, Any]]) -> list[str]:
    """The names of all state arrays of a group; a parameter need not have all of them."""
    return list(dict.fromkeys(name for _, i in trees.flatten(template, "")[1] for name in named[i]))


def constructor_arguments(optimizer: Optimizer) -> tuple[Any, dict[str, Any], dict[int, Any], dict[str, Any]]:
    """`params` and keywords that make an optimizer like this one over the same arrays.

    Then what to set afterwards: rates of groups, and what groups take that are added.
    """
    given = {
        "max_grad_norm": optimizer.max_grad_norm,
        "track_grad_norm": optimizer.track_grad_norm,
        "nonfinite": optimizer.nonfinite,
        **optimizer._state_format.as_dict(),
    }
    templates = map(trees.importable, optimizer._templates)
    structures = [trees.build(template, optimizer._params.__getitem__) for template in templates]
    hypers = [group.hypers for group in optimizer.param_groups]
    rates = {}
    for i, (group, own) in enumerate(zip(optimizer.param_groups, hypers, strict=True)):
        if optimizer._by_first_rate(own) is not None:  # the current rate may be 0, or a schedule that starts at 0
            rates[i], own["lr"] = own["lr"], group.initial_lr
    if not optimizer._grouped:
        return structures[0], {**hypers[0], **given}, rates, dict(optimizer._defaults)
    groups = [{"params": structure, **own} for structure, own in zip(structures, hypers, strict=True)]
    return groups, {**optimizer._defaults, **given}, rates, dict(optimizer._defaults)


class End:
    """What `copy` and `pickle` read of an optimizer after its arrays: it raises if the optimizer changed meanwhile.

    They read the arrays one by one, while other threads may step. A copy has an `Origin` in its place.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer, self._changes = optimizer, optimizer._changes
        self._origin = Origin(id(optimizer._stepped), optimizer._stepped._changes)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._optimizer._changes != self._changes:
            raise RuntimeError(_CHANGED)
        return Origin, tuple(self._origin)


class Origin(NamedTuple):
    """The optimizer that holds the arrays that were copied, and how many calls may have changed it until then."""

    number: int
    changes: int

    def check(self, wrapped: Origin | None) -> None:
        """Checks a copied wrapper: `wrapped` is that of the optimizer in it, which may have been copied before it."""
        if wrapped is not None and wrapped.number == self.number and wrapped.changes != self.changes:
            raise RuntimeError(_CHANGED)


_CHANGED = (
    "this optimizer was changed or saved while it was copied, by a step for example; copy it where no other thread "
    "uses it, or try again"
)


def writable(structure: Any) -> Any:
    """The structure with copies of arrays that cannot be written: those of an unpickled one may be another's memory."""
    template, leaves = trees.flatten(structure, "params")

    def leaf(i: int) -> Any:
        array = leaves[i][1]
        if isinstance(array, np.ndarray) and not (array.flags.writeable and array.flags.aligned):
            return array.copy("K")
        return array

    return trees.build(template, leaf)


def rebuild(
    kind: type[Optimizer],
    params: Any,
    keywords: dict[str, Any],
    rates: Mapping[int, Any],
    defaults: dict[str, Any],
) -> Optimizer:
    """Creates the optimizer of a copy; `load_state_dict` then loads its state."""
    if isinstance(params, list) and all(map(is_group, params)):  # hyperparameters may be lists or tuples too
        params = [{**group, "params": writable(group["params"])} for group in params]
    else:
        params = writable(params)
    optimizer = kind(params, **keywords)
    optimizer._defaults = defaults
    for i, rate in rates.items():
        optimizer.param_groups[i]["lr"] = rate
    return optimizer
