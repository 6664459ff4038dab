"""A parameter group: its arrays and its hyperparameters, checked whenever one is set. It takes no steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays import layout
from schuss._arrays.formats import State
from schuss._backends.protocol import Change, Copy
from schuss._core import scheduled_hypers, scheduling, validate
from schuss._core.kind import Kind
from schuss._core.rules import RULES

_DECAYS = {"l2": 0.0, "decoupled": 1.0, "independent": 2.0, "own": 3.0}


class ParamGroup(MutableMapping[str, Any]):
    """One group of parameters, used like a dict.

    ``group["params"]`` is a tuple of its arrays; every other key is a hyperparameter. Setting one checks it, and the
    next step uses it. A hyperparameter that decides which state arrays there are (``amsgrad``, ``centered``, momentum
    on or off) is fixed once the optimizer is made. A copy of a group is a plain dict.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> opt = schuss.SGD(np.ones(3, np.float32), lr=0.1)
    >>> opt.param_groups[0]["lr"] = 0.01
    >>> opt.param_groups[0]["lr"]
    0.01
    """

    #: Attributes that are set once.
    _own = frozenset({"arrays", "shown", "initial_hypers", "rules", "initial_lr", "variants"})

    def __init__(
        self,
        kind: type[Kind],
        params: list[np.ndarray],
        hypers: Mapping[str, Any],
        where: str,
        initial_lr: float | None = None,
        shown: tuple[np.ndarray, ...] | None = None,
        owner: Callable[[], Any] = lambda: None,
    ) -> None:
        self._kind = kind
        #: Returns the optimizer, as long as it exists.
        self._owner = owner
        self._label = kind._label or kind.__name__
        #: In the order of their numbers, and in that of their structure.
        self.arrays = params
        self.shown = tuple(params) if shown is None else shown
        self._where = where
        self._hypers = self.checked(hypers)
        #: The hyperparameters at step 0: each schedule, other than lr's, is replaced by its value there.
        self.initial_hypers = scheduled_hypers.at_step_0(kind, self._hypers, where)
        #: The rule of each array.
        self.rules = [self.rule_for(array) for array in params]
        self.initial_lr = self._first_rate() if initial_lr is None else initial_lr
        #: The rule and dtype of each array; each distinct pair has its own packed values.
        self.variants = [(rule, array.dtype) for rule, array in zip(self.rules, params, strict=True)]
        self._packed: dict[tuple[str, np.dtype[Any]], np.ndarray] = {}

    def rule_for(self, array: np.ndarray) -> str:
        """The rule of an array under the group's hyperparameters."""
        return self._kind._array_rule(self.initial_hypers, array)

    def states_for(self, array: np.ndarray) -> tuple[State, ...]:
        """The states of an array under the group's hyperparameters."""
        return self._kind._array_states(self.initial_hypers, array)

    def _fixed(self, hypers: Mapping[str, Any]) -> tuple[Any, ...]:
        """The properties that cannot change once the optimizer is made."""
        hypers = scheduled_hypers.at_step_0(self._kind, hypers, self._where)
        states = [self._kind._array_states(hypers, array) for array in self.arrays]
        return states, self._kind._structure(hypers)

    def _first_rate(self) -> float:
        rate = self._hypers["lr"]
        divides = self._kind._by_first_rate(self.initial_hypers)
        if divides is None:
            return _constant(rate)
        first = scheduling.initial_rate(f"{self._where}lr", rate) if callable(rate) else rate
        if not first > 0:
            raise ValueError(
                f"{self._where}{divides} divides by the first lr, which is 0; start above 0, or give the schedule an "
                "attribute initial_lr"
            )
        return float(first)

    def checked(self, hypers: Mapping[str, Any], where: str | None = None) -> dict[str, Any]:
        """The hyperparameters, checked one by one and against each other; `where` is their prefix in messages."""
        where = self._where if where is None else where
        result = {name: self._kind._parameters[name].check(f"{where}{name}", value) for name, value in hypers.items()}
        initial = scheduled_hypers.at_step_0(self._kind, result, where)
        self._kind._check(initial)
        if scheduling.sets_momentum(result["lr"]):
            if any(callable(result.get(name)) for name in ("momentum", "betas")):
                raise ValueError(f"{where}lr is a schedule that sets the momentum, which is a schedule too; use one")
            scheduled_hypers.check_momentum(self._kind, initial, where)
        return result

    def _unknown(self, name: str) -> str:
        return f"{self._label} has no hyperparameter {name!r}; it has {', '.join(self._hypers)}"

    def _layout(
        self,
        variant: tuple[str, np.dtype[Any]],
        hypers: Mapping[str, Any],
        initial_lr: float | None = None,
        scheduled: bool | None = None,
    ) -> list[float]:
        rule, dtype = variant
        rate, first = hypers["lr"], self.initial_lr if initial_lr is None else initial_lr
        own = {**self._kind._typed_rule_values(hypers, dtype), "initial_lr": first}
        return [
            float(any(map(callable, self._hypers.values())) if scheduled is None else scheduled),
            _constant(rate),
            first,
            hypers.get("weight_decay", 0.0),
            _DECAYS[self._kind._decay(hypers)],
            float(hypers["maximize"]),
            *(float(own[name]) for name in RULES[rule].hypers),
        ]

    def _packed_values(self, rule: str, dtype: np.dtype[Any]) -> np.ndarray:
        """A rule's values as the extension module reads them; it holds on to the array, so only the contents change."""
        variant = (rule, dtype)
        if variant not in self._packed:
            values = np.array(self._layout(variant, self.initial_hypers), dtype=np.float64)
            self._packed[variant] = layout.owned(values)
        return self._packed[variant]

    def current(self, name: str) -> Any:
        """The value of a hyperparameter in the optimizer's next step, also under a schedule.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> opt = schuss.SGD(np.ones(3), lr=lambda step: 0.1 / (1 + step))
        >>> opt.step(np.ones(3))
        True
        >>> opt.param_groups[0].current("lr")
        0.05
        """
        optimizer = self._owner()
        if optimizer is None:
            raise RuntimeError("the optimizer of this group no longer exists")
        if name not in self._hypers:
            raise KeyError(self._unknown(name))
        hypers, rate = self._scheduled(optimizer.step_count)
        return {**hypers, "lr": rate}[name]

    def _scheduled(self, step: int) -> tuple[dict[str, Any], float]:
        """The hyperparameters at a step, `initial_hypers` if none but lr has a schedule, and the learning rate."""
        rate, place = self._hypers["lr"], f"{self._where}lr"
        hypers = self.initial_hypers
        if any(callable(value) for name, value in self._hypers.items() if name != "lr"):
            hypers = self._values_at(step)
        if callable(rate):
            momentum = scheduling.momentum(place, rate, step)
            if momentum is not None:
                hypers = scheduled_hypers.with_momentum(hypers, momentum)
            rate = validate.scheduled_rate(place, rate, step)
        return hypers, rate

    def packed_at(self, step: int) -> list[list[float]]:
        """The values of each variant in use for one step, with those that have schedules."""
        hypers, rate = self._scheduled(step)
        values = []
        for variant in dict.fromkeys(self.variants):
            own = (
                self._packed_values(*variant).tolist()
                if hypers is self.initial_hypers
                else self._layout(variant, hypers)
            )
            own[1] = 0.0 if rate is None else rate
            values.append(own)
        return values

    def _values_at(self, step: int) -> dict[str, Any]:
        """The hyperparameters at a step, checked like those of an optimizer that is made with them."""
        values = scheduled_hypers.at(self._kind, self._hypers, step, self._where)
        normal = scheduled_hypers.without_zero(self._hypers, values)
        names = ", ".join(name for name, value in self._hypers.items() if name != "lr" and callable(value))
        try:
            self._kind._check(normal)
        except ValueError as error:
            raise ValueError(f"{self._where}{names} at step {step}: {error}") from None
        if self._fixed(normal) != self._fixed(self.initial_hypers):
            raise ValueError(f"{self._where}{names} at step {step} needs other state arrays than at step 0")
        return values

    def prepare(
        self, hypers: Mapping[str, Any], where: str | None = None, initial_lr: float | None = None
    ) -> dict[str, Any]:
        """Checks hyperparameters that are to replace the current ones; they must need the same state arrays."""
        checked = self.checked(hypers, where)
        where = self._where if where is None else where
        initial_lr = self.initial_lr if initial_lr is None else initial_lr
        fixed = self._fixed(self._hypers)
        if self._fixed(checked) != fixed:
            changed = [name for name in checked if checked[name] != self._hypers[name]]
            alone = [name for name in changed if self._fixed({**self._hypers, name: checked[name]}) != fixed]
            name = (alone or changed)[0]
            other_states = self._fixed(checked)[0] != fixed[0]
            reason = "that needs other state arrays" if other_states else "it is fixed when the optimizer is made"
            raise ValueError(
                f"{where}{name} cannot change from {self._hypers[name]!r} to {checked[name]!r}: {reason}; make a new "
                f"optimizer with {name}={checked[name]!r}"
            )
        divides = self._kind._by_first_rate(checked)
        if divides is not None and not initial_lr > 0:
            raise ValueError(
                f"{where}{divides} divides by the first lr, which was 0 or a schedule's; make a new optimizer"
            )
        return checked

    def with_rate(self, rate: Any) -> dict[str, Any]:
        """The hyperparameters with another rate, checked.

        If both rates are numbers, no state depends on these, and it is much faster than :meth:`prepare`, which looks at
        each array: rates change with every step of many loops.
        """
        if callable(rate) or callable(self._hypers["lr"]):
            return self.prepare({**self._hypers, "lr": rate})
        checked = {**self._hypers, "lr": self._kind._parameters["lr"].check(f"{self._where}lr", rate)}
        self._kind._check({**self.initial_hypers, "lr": checked["lr"]})
        return checked

    def changes(self, checked: dict[str, Any], initial_lr: float | None = None) -> tuple[list[Change], list[Copy]]:
        """What changes when hyperparameters that :meth:`prepare` has checked replace the current ones."""
        initial_lr = self.initial_lr if initial_lr is None else initial_lr
        initial = scheduled_hypers.at_step_0(self._kind, checked, self._where)
        scheduled = any(map(callable, checked.values()))
        copies = [
            (values, np.array(self._layout(variant, initial, initial_lr, scheduled)))
            for variant, values in self._packed.items()
        ]
        own = [("_hypers", checked), ("initial_hypers", initial), ("initial_lr", initial_lr)]
        return [(self, name, value) for name, value in own], copies

    @property
    def states(self) -> list[tuple[State, ...]]:
        """The states of each array, in order."""
        return [self.states_for(array) for array in self.arrays]

    @property
    def old_defaults(self) -> Mapping[str, Any]:
        """The hyperparameters that states saved by older versions lack, with their values there."""
        return self._kind._old_defaults

    @property
    def hypers(self) -> dict[str, Any]:
        """A copy of the hyperparameters."""
        return dict(self._hypers)

    def __getitem__(self, name: str) -> Any:
        if name == "params":
            return self.shown
        if name not in self._hypers:
            raise KeyError(self._unknown(name))
        return self._hypers[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Sets several hyperparameters at once, or none if one of them is wrong."""
        changes = dict(*args, **kwargs)
        if "params" in changes:
            raise TypeError("a group's arrays cannot be replaced; use add_param_group or make a new optimizer")
        unknown = [name for name in changes if name not in self._hypers]
        if unknown:
            raise TypeError(self._unknown(unknown[0]))
        rate_only = list(changes) == ["lr"]
        checked = self.with_rate(changes["lr"]) if rate_only else self.prepare({**self._hypers, **changes})
        optimizer = self._owner()
        if optimizer is not None and not rate_only:
            optimizer._check_setting(self._where, self._hypers, checked)
        attributes, copies = self.changes(checked)
        _schuss.Changes(attributes, copies=copies).make()

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or (name in self._own and name not in vars(self)):
            return super().__setattr__(name, value)
        if name in self._hypers:
            raise AttributeError(f"hyperparameters are items of a group: group[{name!r}] = ...")
        raise AttributeError(f"a group has no attribute {name!r}; its items are {', '.join(self._hypers)}")

    def __delitem__(self, name: str) -> None:
        raise TypeError("a group's entries cannot be deleted; a hyperparameter always has a value")

    def __iter__(self) -> Iterator[str]:
        yield "params"
        yield from self._hypers

    def __len__(self) -> int:
        return 1 + len(self._hypers)

    # Comparing dicts of arrays raises, so groups compare by identity; `index` and `in` need a comparison.
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType] - a Mapping has none

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __repr__(self) -> str:
        hypers = ", ".join(f"{name}={value!r}" for name, value in self._hypers.items())
        return f"ParamGroup({len(self.arrays)} arrays, {hypers})"


def _constant(rate: Any) -> float:
    """A learning rate as kernels get it; one that is a schedule's is set in each step, and None is not used."""
    return 0.0 if rate is None or callable(rate) else float(rate)
