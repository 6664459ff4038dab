"""An optimizer of the package over a torch optimizer's tensors, with all views that a step needs.

The torch optimizer's `param_groups` and `state` are what counts. A plan is made from them at the first step, and again
when they no longer fit: a group was added, a parameter got other memory, a state was loaded or replaced. The states
are then views of the plan's arrays.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch

from schuss._arrays import checks
from schuss._backends.protocol import Counters
from schuss._core import state as _state
from schuss._core.optimizer import Optimizer
from schuss._core.options import Options
from schuss._core.rules import RULES
from schuss.torch import _axes, _saved, _tensors
from schuss.torch._groups import (
    FIRST_RATE,
    as_steps,
    hyperparameter,
    is_hyperparameter,
    keep_missed,
    missed_steps,
    places,
    plain,
    refuse_whole,
    sizes,
)
from schuss.torch._memory import Memory
from schuss.torch._names import BESIDES, NAMES, TORCH_STATES, UNCOUNTED


class Plan:
    """One optimizer over the memory of tensors."""

    def __init__(
        self,
        kind: type[Optimizer],
        options: Mapping[str, Any],
        groups: Sequence[dict[str, Any]],
        state: Mapping[Any, Any],
        before: Plan | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        refuse_whole(groups)
        self._all_groups, self._sizes = list(groups), sizes(groups)
        named = list(places(groups, numbers))
        self._places = [where for where, _ in named]
        #: A group without parameters is allowed in torch: with sharded states a process may have none of them.
        self._groups = [group for group in groups if group["params"]]
        self._params = [param for group in self._groups for param in group["params"]]
        ends = np.cumsum([0, *(len(group["params"]) for group in self._groups)]).tolist()
        self._bounds = list(pairwise(ends))
        self._parts = [self._part(*one) for one in named]
        self._memory = Memory(self._params)
        self._axes = [_tensors.axes(part) or () for part in self._parts]
        arrays = [_tensors.array(part.permute(axes)) for part, axes in zip(self._parts, self._axes, strict=True)]
        named = list(zip(self._places, arrays, strict=True))
        for where, array in named:  # the package checks it too, and does not know the names
            checks.check_written(where, array)
        checks.check_no_overlap(named)
        #: Whether every gradient can be an array as it is.
        self._simple = not any(map(_axes.permuted, self._axes)) and all(
            part is param and part.dtype != torch.bfloat16
            for part, param in zip(self._parts, self._params, strict=True)
        )
        self._names = [[name for name in group if is_hyperparameter(kind, name)] for group in self._groups]
        self._values = [operator.itemgetter(*names) for names in self._names]
        self._hypers = [self._given(g) for g in range(len(self._groups))]
        #: Whether no call has changed anything yet: parameters may then still be loaded, and the plan is made anew.
        self.unused = True
        self.optimizer = self._made(kind, options, arrays) if arrays else None
        if self.optimizer is not None:
            if any("param_names" in group for group in self._groups):
                self.optimizer._array_names = dict(zip(self.optimizer._suffixes, self._places, strict=True))
            counted = None if before is None or before.optimizer is None else before.optimizer
            self._arrange(self.optimizer, state, 0 if counted is None else counted.skipped_steps)
            if counted is not None:
                counts = self.optimizer.step_count, self.optimizer.skipped_steps
                self.optimizer._earlier_norms = counts, counted._norms_now()

    @staticmethod
    def _part(where: str, param: Any) -> Any:
        _tensors.check(where, param)
        return _tensors.local(param)

    def _given(self, g: int) -> tuple[Any, ...]:
        return tuple(hyperparameter(name, self._groups[g], name) for name in self._names[g])

    def _made(self, kind: type[Optimizer], options: Mapping[str, Any], arrays: list[np.ndarray]) -> Optimizer:
        """The optimizer; its learning rates are the first ones where something is relative to them."""
        given = [dict(zip(names, values, strict=True)) for names, values in zip(self._names, self._hypers, strict=True)]
        for group, hypers in zip(self._groups, given, strict=True):
            if kind._by_first_rate(hypers) is not None:
                # Checkpoints of earlier versions have it as ``initial_lr``.
                first = group.get(FIRST_RATE, group.get("initial_lr", hypers["lr"]))
                hypers["lr"] = plain(FIRST_RATE, first)
        self._hypers = [tuple(hypers.values()) for hypers in given]
        self.check_limits(options)
        if len(given) == 1:
            optimizer = kind(arrays, **given[0], **options)
        else:
            groups = [{"params": arrays[a:b], **hypers} for (a, b), hypers in zip(self._bounds, given, strict=True)]
            optimizer = kind(groups, **given[0], **options)
        _axes.check_rules(optimizer, self._places, self._axes)
        rules = [RULES[rule] for group in optimizer.param_groups for rule in group.rules]
        for i, rule in enumerate(rules):
            if not rule.elementwise and self._parts[i].shape != self._params[i].shape:
                raise ValueError(
                    f"{kind.__name__} measures whole arrays, but {self._places[i]} is sharded: this process has "
                    f"{tuple(self._parts[i].shape)} of {tuple(self._params[i].shape)}; use an optimizer that works "
                    "element by element"
                )
        # What groups have in common, and checkpoints of torch's form have there.
        settings = [name for name in optimizer._settings if name not in Options._parameters]
        kept = {name: self._groups[0][name] for name in settings if name in self._groups[0]}
        for name, own in kept.items():
            if any(group.get(name, own) != own for group in self._groups):
                raise ValueError(f"{kind.__name__} has one {name}, but param_groups have several")
        optimizer._backend.changes(optimizer._changed(kept)).make()
        return optimizer

    def settings(self) -> dict[str, Any]:
        """What the optimizer has one of: options that can be changed, and the mode or Ranger's `k`."""
        own = self.optimizer
        assert own is not None
        return {name: own._option(name) for name in ("track_grad_norm", *own._settings)}

    def check_limits(self, options: Mapping[str, Any]) -> None:
        """Raises if an option is about all gradients, of which this process has only a part."""
        field = Options._parameters
        limits = ("max_grad_norm", "track_grad_norm", "nonfinite")
        given = [name for name in limits if name in options and options[name] != field[name].default]
        for where, param in zip(self._places, self._params, strict=True) if given else ():
            if _tensors.is_sharded(param):
                clip = ", and clip with torch.nn.utils.clip_grad_norm_" if given[0] == "max_grad_norm" else ""
                raise ValueError(
                    f"{given[0]} is about the gradients of all parameters, but {where} is sharded, and each process "
                    f"sees only its part; leave it out{clip}"
                )

    def _arrange(self, optimizer: Optimizer, state: Mapping[Any, Any], skipped: int) -> None:
        """Makes the tensors of the states, with the values of those that there are."""
        names = NAMES.get(type(optimizer).__name__, {})
        self._counts = np.zeros(len(self._params), np.float32)
        shared = {name: _tensors.tensor(array) for name, array in optimizer._shared.items()}
        counts = torch.from_numpy(self._counts).unbind()
        named = _state.named_states(optimizer)
        self._entries: list[dict[str, Any]] = [
            {
                "step": counts[i],
                **{names.get(name, name): self._shown(i, array) for name, array in own.items()},
                **shared,
                **_saved.order_of(self._parts[i], own),
            }
            for i, own in enumerate(named)
        ]
        #: Without what a user has put into them.
        self._own = [dict(entry) for entry in self._entries]
        self._copied: set[str] = set()
        steps = [self._restored(i, state.get(param), set(shared)) for i, param in enumerate(self._params)]
        #: Parameters whose states torch does not have yet: those that never had a gradient.
        self._new = set(range(len(self._params)))
        groups = [max(steps[a:b]) for a, b in self._bounds]
        missed = [groups[g] - step for g, (a, b) in enumerate(self._bounds) for step in steps[a:b]]
        taken = max(groups)
        if taken:  # else a user has cleared the states, to begin anew
            taken += missed_steps(self._all_groups)
        counted = Counters(taken, skipped, groups, missed if any(missed) else [])
        optimizer._backend.changes(optimizer._counted(counted)).make()
        self._followed = -1
        self._look(state)

    def _look(self, state: Mapping[Any, Any]) -> None:
        """Remembers the states that torch has, to see when they were replaced."""
        self._seen = list(state.values())
        self._shown_entries = [entry for i, entry in enumerate(self._entries) if i not in self._new]
        self._tensors = self._held()
        # All step counts lie in one piece of memory, so that it is enough to look at the first.
        own = [self._own[i] for i in range(len(self._own)) if i not in self._new]
        states = [tensor for entry in own for name, tensor in entry.items() if name != "step"]
        self._state_memory = Memory([*states, *(entry["step"] for entry in own[:1])])

    def _shown(self, i: int, array: np.ndarray) -> Any:
        """A state as a tensor with the axes of its parameter, distributed like it."""
        tensor = _axes.own_order(_tensors.tensor(array), self._axes[i])
        param = self._params[i]
        if self._parts[i] is param or tensor.shape != self._parts[i].shape:
            return tensor
        return type(param).from_local(
            tensor, param.device_mesh, param.placements, run_check=False, shape=param.shape, stride=param.stride()
        )

    def _restored(self, i: int, saved: Any, shared: set[str]) -> int:
        """Copies a parameter's saved state, if there is any, and returns its step count."""
        where = self._places[i]
        if saved is None:
            return 0
        if not isinstance(saved, Mapping):
            raise TypeError(f"the state of {where} must be a dict, got {type(saved).__name__}")
        own, steps = self._own[i], saved.get("step")
        if not any(name in own or name in TORCH_STATES or name == "master" for name in saved):
            return 0  # it has only what a user has put there
        self._carry(i, saved)
        if steps is None and type(self.optimizer).__name__ in UNCOUNTED:
            if all(value is None for value in saved.values()):
                return 0  # its momentum has not started
            steps = 1
        if "master" in saved and "master" not in own:
            half = self._parts[i].element_size() == 2
            advice = "make the optimizer with it" if half else "the parameter had 16 bits then: use that dtype"
            raise ValueError(f"the state of {where} was saved with master_weights=True; {advice} to load this state")
        # torch saves no master copy; one that is new begins at the parameter.
        excluded = {"step", _saved.ORDER, *(() if "master" in saved else ("master",))}
        wanted = [name for name in own if name not in excluded]
        missing = [name for name in wanted if saved.get(name) is None]
        if missing or steps is None:
            raise ValueError(
                f"the state of {where} lacks {(*missing, 'step')[0]!r}: it has "
                f"{', '.join(map(str, saved))}; it must come from the same optimizer, with the same options"
            )
        taken = as_steps(f"'step' of {where}", steps)
        if _saved.ORDER in own:
            _saved.check_order(where, own[_saved.ORDER], saved.get(_saved.ORDER))
        for name in wanted:
            if name not in self._copied:
                _saved.copy(f"{name!r} of {where}", self._parts[i], _tensors.local(own[name]), saved[name])
        self._copied |= shared
        return taken

    def _carry(self, i: int, saved: Mapping[str, Any]) -> None:
        """Keeps what a user has put into a parameter's state."""
        kind = type(self.optimizer).__name__
        known = {"master", _saved.ORDER, *NAMES.get(kind, {}).values(), *(("mu",) if kind in BESIDES else ())}
        own = self._entries[i]
        own.update((name, value) for name, value in saved.items() if name not in own and name not in known)

    def fits(self, groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any]) -> bool:
        """Whether groups, parameters, their memory and states are those that this was made for."""
        now = sizes(groups)
        if now != self._sizes:
            refuse_whole(groups)
            if [size for _, size in now] != [size for _, size in self._sizes]:
                return False
            self._sizes = now  # a scheduler has put something in
        params = [param for group in groups for param in group["params"]]
        return (
            _same(groups, self._all_groups)
            and _same(params, self._params)
            and not self._memory.changed()
            and (self.optimizer is None or (_same(state.values(), self._seen) and self._has_states()))
        )

    def _has_states(self) -> bool:
        """Whether the tensors in the states are those of this plan, and lie where they did."""
        if not _same(self._held(), self._tensors):
            shown = ((self._entries[i], own) for i, own in enumerate(self._own) if i not in self._new)
            if not all(entry.get(name) is tensor for entry, own in shown for name, tensor in own.items()):
                return False
            self._tensors = self._held()  # a user's own entries have changed
        return not self._state_memory.moved()

    def _held(self) -> list[Any]:
        """The tensors in all states."""
        return list(chain.from_iterable(map(dict.values, self._shown_entries)))

    def adopt_options(self) -> None:
        """Takes hyperparameters that were changed in the groups of the torch optimizer."""
        assert self.optimizer is not None
        for g, group in enumerate(self._groups):
            if self._values[g](group) != self._hypers[g]:  # a tensor equals the number in it
                now = self._given(g)
                named = zip(self._names[g], now, self._hypers[g], strict=True)
                try:
                    self.optimizer.param_groups[g].update({name: new for name, new, old in named if new != old})
                except ValueError as error:
                    if "in train mode" in str(error):  # its advice does not work here: eval() adopts the options too
                        advice = "here set it back first, since eval() fails too; give schedulers cycle_momentum=False"
                        raise ValueError(f"{error}; {advice}") from None
                    raise
                self._hypers[g] = now

    def set(self, name: str, value: Any, state: Any) -> None:
        """Sets an attribute of the optimizer, which may be its step count."""
        self._followed = -1
        setattr(self.optimizer, name, value)
        self.follow(state)

    def gradients(self, zeros: bool = False) -> tuple[Any, list[Any]]:
        """The gradients as arrays in the structure that the optimizer takes, and the tensors that have one.

        With `zeros`, parameters without a gradient have one of zeros.
        """
        try:
            if self._simple:
                return self._structure([param.grad.numpy() for param in self._params]), self._parts
        except (AttributeError, RuntimeError, TypeError):
            pass  # None among them, or one that needs more
        found = [None if param.grad is None else self._gradient(i, param) for i, param in enumerate(self._params)]
        parts = [part for part, own in zip(self._parts, found, strict=True) if own is not None]
        if zeros and self.optimizer is not None:
            params = self.optimizer._params
            found = [np.zeros_like(param) if own is None else own for param, own in zip(params, found, strict=True)]
        return self._structure(found), parts

    def arguments(self, name: str, given: Any) -> Any:
        """The arguments of a method of the optimizer, with arrays in the place of tensors, and a number as scale."""
        if isinstance(given, Mapping) and "grad_scale" in given:
            given = {**given, "grad_scale": plain("grad_scale", given["grad_scale"])}
        return _axes.arguments(name, given, self._places, self._axes)

    def result(self, found: Any) -> Any:
        """The result of a method of the optimizer, with tensors in the place of arrays."""
        return _axes.result(found, self._axes)

    def _gradient(self, i: int, param: Any) -> np.ndarray:
        gradient = _tensors.local(param.grad)
        if gradient.layout != torch.strided:
            raise RuntimeError(
                f"the gradient of {self._places[i]} is sparse; make it dense: sparse=False in an Embedding"
            )
        return _tensors.array(gradient.permute(self._axes[i]))

    def _structure(self, leaves: list[Any]) -> Any:
        return leaves if len(self._bounds) == 1 else [leaves[a:b] for a, b in self._bounds]

    def follow(self, state: Any) -> None:
        """Brings the tensors of step counts up to date, and shows the states of parameters that took a first step."""
        if self.optimizer is None or self.optimizer.step_count == self._followed:
            return
        counters = self.optimizer._read_counters()
        for (a, b), steps in zip(self._bounds, counters.groups, strict=True):
            self._counts[a:b] = steps
        if counters.missed:
            self._counts -= counters.missed
            # Kept after each step, since some wrappers of torch save the groups as they are then.
            keep_missed(self._all_groups, counters.steps - int(self._counts.max()))
        started = [i for i in self._new if self._counts[i] > 0]
        if started:
            self.unused = False
            for i in started:
                self._carry(i, state.get(self._params[i]) or {})
            state.update((self._params[i], self._entries[i]) for i in started)
            self._new.difference_update(started)
            self._look(state)
        self._followed = counters.steps

    def keep_count(self, groups: Sequence[dict[str, Any]], state: Any) -> None:
        """Keeps in the states and in `groups`, which may have changed, all that counts, for checkpoints and new plans.

        Steps that a parameter has missed are those that it has taken less than the optimizer; so what is in the groups
        is the rest: the steps that none of their parameters has taken.
        """
        self.follow(state)
        if self.optimizer is None:
            return
        known = dict(zip(map(id, self._params), self._counts.tolist(), strict=True))
        taken = [known.get(id(param)) for group in groups for param in group["params"]]
        if None in taken:  # one may have come in the place of another, with its state
            taken += [_saved.taken(state.get(param)) for group in groups for param in group["params"]]
        most = max((steps for steps in taken if steps is not None), default=0)
        keep_missed(groups, max(0, self.optimizer.step_count - most))


def _same(one: Any, other: Any) -> bool:
    """Whether two collections hold the same objects."""
    return len(one) == len(other) and all(map(operator.is_, one, other))
