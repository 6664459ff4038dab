"""Loading of states, saved as plain dicts: everything is checked before anything is changed.

Files are left to :mod:`schuss.checkpoint`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schuss._arrays import checks, formats, trees
from schuss._backends.protocol import Call, Change, Copy, Counters
from schuss._core import options, scheduling, validate
from schuss._core.state import SCHEDULE, format_options, named_states, names_of

if TYPE_CHECKING:
    from schuss._core.group import ParamGroup
    from schuss._core.optimizer import Optimizer

_KEYS = ("optimizer", "step", "skipped_steps", "max_grad_norm", "nonfinite", "param_groups")


class Target(NamedTuple):
    """An array that can be loaded: its parameter's number or -1, its name in the state, and itself."""

    array: int
    name: str
    value: Any


class Unfit:
    """A context for checks of a state: what does not fit is raised if `strict`, else its message is kept."""

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
        """The targets that can be loaded, and the numbers of the arrays that keep all of their states.

        `known` has the names of what was saved.
        """
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


def load_state_dict(optimizer: Optimizer, state: Mapping[str, Any], strict: bool) -> list[str]:
    """See :meth:`schuss.Optimizer.load_state_dict`; returns what does not fit."""
    if not isinstance(state, Mapping):
        raise TypeError(f"a state is a dict from state_dict(), got {type(state).__name__}")
    unfit = Unfit(strict)
    with optimizer._exclusive():
        # First if all must fit: it says whose state this is.
        changes = check_scalars(optimizer, state, unfit, extra=("state",)) if strict else None
        named = named_states(optimizer)
        found = _matching_arrays(optimizer, state, named) if strict else _all_arrays(state)
        targets = [
            Target(i, f"state['state'][{g}][{name!r}]{suffix}", own)
            for i, (g, suffix) in enumerate(optimizer._suffixes)
            for name, own in named[i].items()
        ]
        targets += [Target(-1, f"state['shared'][{name!r}]", value) for name, value in optimizer._shared.items()]

        def check(target: Target) -> None:
            if target.name not in found:
                raise ValueError(f"the state has no {target.name}")
            given, own = found[target.name], target.value
            checks.check_like(target.name, given, "this optimizer's", own.shape, own.dtype)

        loaded, kept = unfit.fitting(targets, found, check)
        changes = changes or check_scalars(optimizer, state, unfit, kept, extra=("state",))
        copies = [(target.value, found[target.name]) for target in loaded if target.array in changes.fit]
        changes.make(optimizer, _without_overlap(copies))
    return unfit.messages


def _all_arrays(state: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a state by their places."""
    groups, shared = state.get("state"), state.get("shared", {})
    if not isinstance(groups, (list, tuple)) or not all(isinstance(one, Mapping) for one in (*groups, shared)):
        raise ValueError("state['state'] must be a list with a dict for each group, and state['shared'] a dict")
    found = {f"state['shared'][{name!r}]": value for name, value in shared.items()}
    for g, group in enumerate(groups):
        for name in group:
            place = f"state['state'][{g}][{name!r}]"
            found |= {place + suffix: array for suffix, array in trees.flatten(group[name], place)[1]}
    return found


def _matching_arrays(optimizer: Optimizer, state: Mapping[str, Any], named: list[dict[str, Any]]) -> dict[str, Any]:
    """The arrays of a state by their places; raises unless they are in the structures of the optimizer's states."""
    given, shared = state["state"], state.get("shared", {})
    if not isinstance(given, (list, tuple)) or len(given) != len(optimizer.param_groups):
        groups = len(optimizer.param_groups)
        raise ValueError(f"state['state'] must be a list with a dict for each group, {groups} in all")
    found = {}
    for g, template in enumerate(optimizer._templates):
        names = names_of(template, named)
        if not isinstance(given[g], Mapping) or set(given[g]) != set(names):
            raise ValueError(f"state['state'][{g}] must be a dict with the keys {names}, got {_found(given[g])}")
        for name in names:
            place = f"state['state'][{g}][{name!r}]"
            for i, where, array in trees.leaves(template, given[g][name], place, f"param_groups[{g}]['params']"):
                if name in named[i]:
                    found[where] = array
                elif array is not None:
                    raise ValueError(f"{where} must be None: this parameter has no {name}")
    if not isinstance(shared, Mapping) or set(shared) != set(optimizer._shared):
        raise ValueError(
            f"state['shared'] must be a dict with the keys {list(optimizer._shared)}, got {_found(shared)}"
        )
    return found | {f"state['shared'][{name!r}]": value for name, value in shared.items()}


def _without_overlap(copies: Sequence[Copy]) -> list[Copy]:
    """Copies whose sources share no memory with another's target: those that do are copied first."""
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

    def make(self, optimizer: Optimizer, copies: Sequence[Copy], *calls: Call) -> None:
        """Loads it, together with arrays, after these calls of functions."""
        copies = [*self.copies, *copies]
        self.schedules.make(
            lambda loaded: optimizer._backend.changes([*loaded, *self.attributes], copies=copies), *calls
        )


def check_scalars(
    optimizer: Optimizer,
    state: Mapping[str, Any],
    unfit: Unfit,
    kept: Collection[int] = (),
    extra: tuple[str, ...] = (),
) -> ScalarChanges:
    """Checks the part of a state that is not arrays, and that it has the keys `extra` too.

    The arrays with the numbers `kept` keep their own states and step counts.
    """
    missing = [key for key in (*_KEYS, *extra) if key not in state]
    if missing:
        raise ValueError(f"the state lacks {', '.join(map(repr, missing))}; it must come from state_dict()")
    name = optimizer._name()
    if not isinstance(state["optimizer"], str) or state["optimizer"] != name:
        inner = optimizer._stepped
        advice = (
            "; load it into the wrapped optimizer"
            if inner is not optimizer and state["optimizer"] == inner._name()
            else ""
        )
        if str(state["optimizer"]).endswith(f"({name})"):
            advice = "; load it into the same wrapper around this optimizer, then use that one's .optimizer"
        raise ValueError(f"this is the state of {state['optimizer']!r}, but the optimizer is {name!r}{advice}")
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
            steps[g] = validate.steps(f"{place}['step']", given.get("step"))
            counts |= _missed(f"{place}['missed_steps']", given.get("missed_steps", {}), numbers, steps[g], unfit)
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
    step = validate.steps("state['step']", state["step"])
    skipped = validate.steps("state['skipped_steps']", state["skipped_steps"])
    attributes += optimizer._counted(Counters(step, skipped, steps, missed if any(missed) else []))
    return ScalarChanges(attributes, copies, loading, fit)


def _check_state_format(optimizer: Optimizer, state: Mapping[str, Any]) -> formats.StateFormat:
    """The format of a saved state, which must match the optimizer's; its rounding and seed will be adopted."""
    saved, own = options.state_format(state), optimizer._state_format
    for name, was, this in (("state_dtype", saved.small, own.small), ("master_weights", saved.master, own.master)):
        if was != this:
            raise ValueError(
                f"the state was saved with {name}={was!r}, but the optimizer has {name}={this!r}; "
                f"make it with {name}={was!r} to load this state"
            )
    order = format_options(optimizer).get("memory_order")
    if state.get("memory_order") != order:
        raise ValueError(
            "the state was saved for parameters in another memory order (C or Fortran), to which its scales belong"
        )
    return saved


def _check_hypers(
    place: str, group: ParamGroup, given: Mapping[str, Any], name: str, loading: scheduling.Loading
) -> tuple[list[Change], list[Copy]]:
    """What changes when the hyperparameters of a saved group are loaded."""
    entry = {**group.old_defaults, **given}
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


def _missed(place: str, value: Any, numbers: Mapping[str, int], steps: int, unfit: Unfit) -> dict[int, int]:
    """How many steps each array of a group has missed, by its number; saved by path, and only for those that have."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{place} must be a dict, got {type(value).__name__}")
    for path in value:
        with unfit:
            if path not in numbers:
                raise ValueError(f"{place} has unknown {path!r}, where this optimizer has no array")
    missed = {i: validate.steps(f"{place}[{path!r}]", value.get(path, 0)) for path, i in numbers.items()}
    for path, i in numbers.items():
        if missed[i] > steps:
            raise ValueError(f"{place}[{path!r}] is {missed[i]}, but the group has taken {steps} steps")
    return missed


def _found(thing: Any) -> str:
    return str(list(thing)) if isinstance(thing, Mapping) else type(thing).__name__
