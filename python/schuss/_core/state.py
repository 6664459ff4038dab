"""State as plain dicts: exporting, checking and loading it.

Everything is checked before anything is changed. Files are left to :mod:`schuss.checkpoint`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schuss._arrays import checks, formats, trees
from schuss._backends.protocol import Change, Copy, Counters
from schuss._core import options, scheduling, validate

if TYPE_CHECKING:
    from schuss._core.group import ParamGroup
    from schuss._core.optimizer import Optimizer

SCHEDULE = "schedule"
_KEYS = ("optimizer", "step", "skipped_steps", "max_grad_norm", "nonfinite", "param_groups", "state")


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
        **_format(optimizer),
        "param_groups": groups,
    }


def _format(optimizer: Optimizer) -> dict[str, Any]:
    """The state format, if it is not the plain one; int8 scales depend on the parameters' memory order."""
    kept = optimizer._state_format.as_dict()
    if optimizer._state_format.dtype == "int8":
        kept["memory_order"] = "".join(map(checks.order, optimizer._params))
    return kept


def _check_state_format(optimizer: Optimizer, state: Mapping[str, Any]) -> formats.StateFormat:
    """The format of a saved state, which must match the optimizer's; its rounding and seed will be adopted."""
    saved, own = options.state_format(state), optimizer._state_format
    for name, was, this in (("state_dtype", saved.small, own.small), ("master_weights", saved.master, own.master)):
        if was != this:
            raise ValueError(
                f"the state was saved with {name}={was!r}, but the optimizer has {name}={this!r}; "
                f"make it with {name}={was!r} to load this state"
            )
    order = _format(optimizer).get("memory_order")
    if state.get("memory_order") != order:
        raise ValueError(
            "the state was saved for parameters in another memory order (C or Fortran), to which its scales belong"
        )
    return saved


def state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """See :meth:`schuss.Optimizer.state_dict`."""
    result = scalars(optimizer)  # first: it orders the GPU work that follows after the steps taken
    state = []
    named = named_states(optimizer)
    for template in optimizer._templates:
        arrays = {}
        for name in _names(template, named):
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


def _names(template: Any, named: list[dict[str, Any]]) -> list[str]:
    """The names of all state arrays of a group; a parameter need not have all of them."""
    return list(dict.fromkeys(name for _, i in trees.flatten(template, "")[1] for name in named[i]))


class Unfit:
    """What of a state does not fit, found in blocks that it is the context of: raised if `strict`, else collected."""

    def __init__(self, strict: bool) -> None:
        self.strict = validate.flag("strict", strict)
        self.messages: list[str] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        found = not self.strict and isinstance(error, (TypeError, ValueError))
        if found:
            self.messages.append(str(error))
        return found

    def fitting(
        self, targets: Iterable[Target], known: Iterable[str], check: Callable[[Target], None]
    ) -> tuple[list[Target], set[int]]:
        """The targets that can be loaded, and the numbers of the arrays that keep their state: one is loaded whole."""
        targets, kept = list(targets), set()
        for target in targets:
            with self:
                fits = False
                try:
                    check(target)
                    fits = True
                finally:
                    if not fits:
                        kept.add(target.array)
        wanted = {target.name for target in targets}
        self.messages += [f"this optimizer has no {name}" for name in known if not self.strict and name not in wanted]
        return [target for target in targets if target.array not in kept], kept


class Target(NamedTuple):
    """An array that can be loaded: its parameter's number or -1, its name in the state, and itself."""

    array: int
    name: str
    value: Any


def load_state_dict(optimizer: Optimizer, state: Mapping[str, Any], strict: bool) -> list[str]:
    """See :meth:`schuss.Optimizer.load_state_dict`; returns what does not fit."""
    if not isinstance(state, Mapping):
        raise TypeError(f"a state is a dict from state_dict(), got {type(state).__name__}")
    unfit = Unfit(strict)
    with optimizer._exclusive():
        (_load if strict else _load_fitting)(optimizer, state, unfit)
    return unfit.messages


def _load_fitting(optimizer: Optimizer, state: Mapping[str, Any], unfit: Unfit) -> None:
    groups, shared = state.get("state"), state.get("shared", {})
    if not isinstance(groups, (list, tuple)) or not all(isinstance(one, Mapping) for one in (*groups, shared)):
        raise ValueError("state['state'] must be a list with a dict for each group, and state['shared'] a dict")
    named, found = named_states(optimizer), {f"state['shared'][{name!r}]": value for name, value in shared.items()}
    for g, group in enumerate(groups):
        for name in group:
            place = f"state['state'][{g}][{name!r}]"
            found |= {place + suffix: array for suffix, array in trees.flatten(group[name], place)[1]}
    targets = [
        Target(i, f"state['state'][{g}][{name!r}]{suffix}", own)
        for i, (g, suffix) in enumerate(optimizer._suffixes)
        for name, own in named[i].items()
    ]
    targets += [Target(-1, f"state['shared'][{name!r}]", value) for name, value in optimizer._shared.items()]

    def check(target: Target) -> None:
        if target.name not in found:
            raise ValueError(f"the state has no {target.name}")
        checks.check_like(target.name, found[target.name], "this optimizer's", target.value.shape, target.value.dtype)

    loaded, kept = unfit.fitting(targets, found, check)
    changes = check_scalars(optimizer, state, unfit, kept, extra=("state",))
    copies = [(target.value, found[target.name]) for target in loaded if target.array in changes.fit]
    changes.make(optimizer, _apart(copies))


def _load(optimizer: Optimizer, state: Mapping[str, Any], unfit: Unfit) -> None:
    changes = check_scalars(optimizer, state, unfit, extra=("state",))
    given = state["state"]
    if not isinstance(given, (list, tuple)) or len(given) != len(optimizer.param_groups):
        groups = len(optimizer.param_groups)
        raise ValueError(f"state['state'] must be a list with a dict for each group, {groups} in all")
    copies = []
    named = named_states(optimizer)
    for g, template in enumerate(optimizer._templates):
        names = _names(template, named)
        if not isinstance(given[g], Mapping) or set(given[g]) != set(names):
            raise ValueError(f"state['state'][{g}] must be a dict with the keys {names}, got {_found(given[g])}")
        for name in names:
            place = f"state['state'][{g}][{name!r}]"
            for i, where, array in trees.leaves(template, given[g][name], place, f"param_groups[{g}]['params']"):
                target = named[i].get(name)
                if target is None:
                    if array is not None:
                        raise ValueError(f"{where} must be None: this parameter has no {name}")
                    continue
                checks.check_like(where, array, "this optimizer's", target.shape, target.dtype)
                copies.append((target, array))
    shared = state.get("shared", {})
    if not isinstance(shared, Mapping) or set(shared) != set(optimizer._shared):
        raise ValueError(
            f"state['shared'] must be a dict with the keys {list(optimizer._shared)}, got {_found(shared)}"
        )
    for name, target in optimizer._shared.items():
        checks.check_like(f"state['shared'][{name!r}]", shared[name], "this optimizer's", target.shape, target.dtype)
        copies.append((target, shared[name]))
    changes.make(optimizer, _apart(copies))


def _apart(copies: Sequence[Copy]) -> list[Copy]:
    """The same with copies of sources that share memory with a target, other than their own if it is all of that."""
    hosts = [(target, source) for target, source in copies if isinstance(target, np.ndarray)]
    ranges = checks.byte_ranges(target for target, _ in hosts)
    same = {id(source) for target, source in hosts if _is_same(target, source)}
    return [
        (target, source.copy() if ranges and id(source) not in same and checks.overlaps(ranges, source) else source)
        for target, source in copies
    ]


def _is_same(target: np.ndarray, source: np.ndarray) -> bool:
    return target.ctypes.data == source.ctypes.data and target.strides == source.strides


class ScalarChanges(NamedTuple):
    """The part of a state that is not arrays, checked and ready to be loaded."""

    attributes: list[Change]
    #: The packed values of hyperparameters.
    copies: list[Copy]
    schedules: scheduling.Loading
    #: The numbers of the arrays whose states can be loaded with it, and -1 for those that all share.
    fit: Collection[int]

    def make(self, optimizer: Optimizer, copies: Sequence[Copy]) -> None:
        """Loads it, together with arrays."""
        copies = [*self.copies, *copies]
        self.schedules.make(lambda loaded: optimizer._backend.changes([*loaded, *self.attributes], copies=copies))


def check_scalars(
    optimizer: Optimizer,
    state: Mapping[str, Any],
    unfit: Unfit,
    kept: Collection[int] = (),
    extra: tuple[str, ...] = (),
) -> ScalarChanges:
    """Checks the part of a state that is not arrays; the arrays `kept` keep their own states and step counts."""
    missing = [key for key in _KEYS if key not in state and (key != "state" or key in extra)]
    if missing:
        raise ValueError(f"the state lacks {', '.join(map(repr, missing))}; it must come from state_dict()")
    name = optimizer._name()
    if not isinstance(state["optimizer"], str) or state["optimizer"] != name:
        raise ValueError(f"this is the state of {state['optimizer']!r}, but the optimizer is {name!r}")
    counters = optimizer._read_counters()
    steps, missed = list(counters.groups), counters.missed or [0] * len(optimizer._params)
    present = [steps[g] - times for (g, _), times in zip(optimizer._suffixes, missed, strict=True)]
    entries = state["param_groups"]
    with unfit:
        if not isinstance(entries, (list, tuple)):
            entries = []
        if len(entries) != len(optimizer.param_groups):
            groups = len(optimizer.param_groups)
            raise ValueError(f"state['param_groups'] must be a list with a dict for each group, {groups} in all")
    attributes: list[Change] = []
    copies: list[Copy] = []
    counts: dict[int, int] = {}
    loading = scheduling.Loading()
    for g, (group, given) in enumerate(zip(optimizer.param_groups, entries, strict=False)):
        place = f"state['param_groups'][{g}]"
        numbers = {suffix: i for i, (of, suffix) in enumerate(optimizer._suffixes) if of == g}
        with unfit:
            if not isinstance(given, Mapping):
                raise TypeError(f"{place} must be a dict, got {type(given).__name__}")
            steps[g] = count(f"{place}['step']", given.get("step"))
            counts |= _missed(f"{place}['missed_steps']", given.get("missed_steps", {}), numbers, unfit)
            with unfit:
                changed, packed = _check_hypers(place, group, given, name, loading)
                attributes += changed
                copies += packed
    # States from older versions lack k, alpha and pullback, which are then left unchanged.
    settings: dict[str, Any] = {}
    for name in optimizer._settings:
        with unfit:
            if name in state:
                settings[name] = optimizer._checked(name, state[name], f"state[{name!r}]")
    attributes += optimizer._changed(settings)
    fit: Collection[int] = ()
    with unfit:
        attributes += optimizer._state_format_changed(_check_state_format(optimizer, state))
        fit = {-1, *counts}.difference(kept)
    for i, (g, _) in enumerate(optimizer._suffixes):
        missed[i] = counts[i] if i in fit else max(steps[g] - present[i], 0)
    step, skipped = count("state['step']", state["step"]), count("state['skipped_steps']", state["skipped_steps"])
    attributes += optimizer._counted(Counters(step, skipped, steps, missed if any(missed) else []))
    return ScalarChanges(attributes, copies, loading, fit)


def _check_hypers(
    place: str, group: ParamGroup, given: Mapping[str, Any], name: str, loading: scheduling.Loading
) -> tuple[list[Change], list[Copy]]:
    """What changes when the hyperparameters of a saved group are loaded."""
    entry = {**group.once_fixed, **given}
    for counter in ("step", "missed_steps"):
        entry.pop(counter, None)
    initial_lr = validate.number(f"{place}['initial_lr']", entry.pop("initial_lr", group.initial_lr))
    missing = [key for key in group.hypers if key not in entry]
    unknown = [key for key in entry if key not in group.hypers]
    if missing or unknown:
        wrong = f"lacks {missing[0]!r}" if missing else f"has unknown {unknown[0]!r}"
        raise ValueError(f"{place} {wrong}; {name} has {', '.join(group.hypers)}")
    states = {}
    for key, own in group.hypers.items():
        saved = entry[key]
        kept = saved.get(SCHEDULE) if isinstance(saved, Mapping) else None
        if callable(own):
            entry[key] = own
            # This optimizer keeps its own schedule, whatever was saved.
            if kept is not None and scheduling.state(own) is not None:
                states[key] = kept
        elif kept is not None or (isinstance(saved, str) and saved == SCHEDULE):
            what = "learning-rate schedule" if key == "lr" else f"schedule for {key}"
            raise ValueError(
                f"{place} was saved with a {what}, which is a function and cannot be saved; make the "
                f"optimizer with {key}=<that schedule> before loading"
            )
    hypers = group.prepare({key: entry[key] for key in group.hypers}, f"{place}: ", initial_lr)
    for key, kept in states.items():
        loading.add(f"{place}[{key!r}]", hypers[key], kept)
    return group.changes(hypers, initial_lr)


def _missed(place: str, value: Any, numbers: Mapping[str, int], unfit: Unfit) -> dict[int, int]:
    """How many steps each array of a group has missed, by its number; saved by path, and only for those that have."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{place} must be a dict, got {type(value).__name__}")
    unknown = [path for path in value if path not in numbers]
    if unknown and unfit.strict:
        raise ValueError(f"{place} has unknown {unknown[0]!r}, where this optimizer has no array")
    return {i: count(f"{place}[{path!r}]", value.get(path, 0)) for path, i in numbers.items()}


def _found(thing: Any) -> str:
    return str(list(thing)) if isinstance(thing, Mapping) else type(thing).__name__


def count(place: str, value: Any) -> int:
    """The value as a number of steps."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**63:
        raise ValueError(f"{place} must be a whole number >= 0 and < 2**63, got {value!r}")
    return int(value)


def constructor_arguments(optimizer: Optimizer) -> tuple[Any, dict[str, Any], dict[int, Any]]:
    """`params` and keywords that make an optimizer like this one over the same arrays, and rates to set afterwards."""
    given = {
        "max_grad_norm": optimizer.max_grad_norm,
        "track_grad_norm": optimizer.track_grad_norm,
        "nonfinite": optimizer.nonfinite,
        **optimizer._state_format.as_dict(),
    }
    structures = [trees.build(template, optimizer._params.__getitem__) for template in optimizer._templates]
    hypers = [group.hypers for group in optimizer.param_groups]
    rates = {}
    for i, (group, own) in enumerate(zip(optimizer.param_groups, hypers, strict=True)):
        if optimizer._by_first_rate(own) is not None:  # the current rate may be 0, or a schedule that starts at 0
            rates[i], own["lr"] = own["lr"], group.initial_lr
    if not optimizer._grouped:
        return structures[0], {**hypers[0], **given}, rates
    groups = [{"params": structure, **own} for structure, own in zip(structures, hypers, strict=True)]
    return groups, {**optimizer._defaults, **given}, rates


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
    kind: type[Optimizer], params: Any, keywords: dict[str, Any], rates: Mapping[int, Any] | None = None
) -> Optimizer:
    """Creates the optimizer of a copy; `load_state_dict` then loads its state."""
    optimizer = kind(writable(params), **keywords)
    for i, rate in (rates or {}).items():
        optimizer.param_groups[i]["lr"] = rate
    return optimizer
