"""A parameter group: its arrays and its hyperparameters, checked whenever one is set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np

from schuss import _schuss
from schuss._core import scheduling, validate

if TYPE_CHECKING:
    from schuss._core.optimizer import Optimizer

RULES = _schuss.rules()
_DECAYS = {"l2": 0.0, "decoupled": 1.0, "independent": 2.0, "own": 3.0}


class ParamGroup(MutableMapping[str, Any]):
    """One group of parameters, in the manner of a dict.

    ``group["params"]`` is a tuple of its arrays; every other key is a hyperparameter. Setting one checks it, and the
    next step uses it. A hyperparameter that decides which state arrays there are (``amsgrad``, ``centered``, momentum
    on or off) is fixed once the optimizer is made.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> opt = schuss.SGD(np.ones(3, np.float32), lr=0.1)
    >>> opt.param_groups[0]["lr"] = 0.01
    >>> opt.param_groups[0]["lr"]
    0.01
    """

    def __init__(
        self,
        kind: type[Optimizer],
        params: list[np.ndarray],
        hypers: Mapping[str, Any],
        where: str,
        initial_lr: float | None = None,
    ) -> None:
        self._kind = kind
        self._label = kind._label or kind.__name__
        self._params = params
        self._where = where
        self._hypers = self.checked(hypers)
        self.rule = kind._rule(self._hypers)
        self.initial_lr = self._first_rate() if initial_lr is None else initial_lr
        # Laid out as the extension module reads it; it keeps a reference, so only the contents ever change.
        self.packed = np.array(self._layout(self._hypers), dtype=np.float64)

    def _first_rate(self) -> float:
        rate = self._hypers["lr"]
        if self._hypers.get("decay_form") != "independent":
            return 0.0 if callable(rate) else float(rate)
        first = getattr(rate, "initial_lr", None) if callable(rate) else rate
        if first is None:
            first = validate.scheduled_rate(f"{self._where}lr", rate, 0)
        if not first > 0:
            raise ValueError(
                f'{self._where}decay_form "independent" divides by the first lr, which is 0; start above 0, or '
                "give the schedule an attribute initial_lr"
            )
        return float(first)

    def checked(self, hypers: Mapping[str, Any], where: str | None = None) -> dict[str, Any]:
        """The hyperparameters with every value checked, also against each other; `where` they stand, for messages."""
        where = self._where if where is None else where
        result = {name: validate.CHECKS[name](f"{where}{name}", value) for name, value in hypers.items()}
        self._kind._check(result)
        if scheduling.sets_momentum(result["lr"]):
            self._check_momentum(result, where)
        return result

    def _check_momentum(self, hypers: Mapping[str, Any], where: str) -> None:
        """Raises unless there is a momentum for the schedule to set, with the state that it needs."""
        if "momentum" not in hypers and "betas" not in hypers:
            raise ValueError(
                f"{where}lr is a schedule that sets the momentum too, but {self._label} has neither "
                "momentum nor betas; use a schedule that does not (one_cycle: momentum=None)"
            )
        if self._kind._rule(self._with_momentum(hypers, 0.5)) != self._kind._rule(hypers):
            raise ValueError(
                f"{where}lr is a schedule that sets the momentum too, but momentum=0 keeps no buffer for it; "
                "make the optimizer with momentum > 0, or use a schedule that does not (one_cycle: momentum=None)"
            )

    @staticmethod
    def _with_momentum(hypers: Mapping[str, Any], value: float) -> dict[str, Any]:
        if "momentum" in hypers:
            return {**hypers, "momentum": value}
        return {**hypers, "betas": (value, *hypers["betas"][1:])}

    def _layout(self, hypers: Mapping[str, Any]) -> list[float]:
        rate = hypers["lr"]
        own = self._kind._rule_values(hypers)
        return [
            float(callable(rate)),
            0.0 if callable(rate) else rate,
            self.initial_lr,
            hypers.get("weight_decay", 0.0),
            _DECAYS[self._kind._decay(hypers)],
            float(hypers["maximize"]),
            *(float(own[name]) for name in RULES[self.rule]["hypers"]),
        ]

    def packed_at(self, step: int) -> list[float]:
        """The values of a step, with what the schedule says."""
        values: list[float] = self.packed.tolist()
        place, rate = f"{self._where}lr", self._hypers["lr"]
        if callable(rate):
            momentum = scheduling.momentum(place, rate, step)
            if momentum is not None:
                values = self._layout(self._with_momentum(self._hypers, momentum))
            values[1] = validate.scheduled_rate(place, rate, step)
        return values

    def prepare(
        self, hypers: Mapping[str, Any], where: str | None = None, initial_lr: float | None = None
    ) -> dict[str, Any]:
        """Checks hyperparameters that are to replace these ones; they must need the same state."""
        checked = self.checked(hypers, where)
        where = self._where if where is None else where
        initial_lr = self.initial_lr if initial_lr is None else initial_lr
        settled = self._kind._structure(self._hypers)
        if self._kind._structure(checked) != settled:
            changed = [name for name in checked if checked[name] != self._hypers[name]]
            alone = [
                name for name in changed if self._kind._structure({**self._hypers, name: checked[name]}) != settled
            ]
            name = (alone or changed)[0]
            other_rule = self._kind._rule(checked) != self.rule
            reason = "that needs other state arrays" if other_rule else "it is settled when the optimizer is made"
            raise ValueError(
                f"{where}{name} cannot change from {self._hypers[name]!r} to {checked[name]!r}: {reason}; make a new "
                "optimizer"
            )
        if checked.get("decay_form") == "independent" and not initial_lr > 0:
            raise ValueError(
                f'{where}decay_form "independent" divides by the first lr, which was 0 or a schedule\'s; make a new '
                "optimizer"
            )
        return checked

    def adopt(self, checked: dict[str, Any]) -> None:
        """Takes hyperparameters that :meth:`prepare` has checked."""
        self._hypers = checked
        self.packed[:] = self._layout(checked)

    @property
    def states(self) -> list[str]:
        """The names of the state arrays of each parameter, in order."""
        return RULES[self.rule]["states"]

    @property
    def hypers(self) -> dict[str, Any]:
        """The hyperparameters as a dict of their own."""
        return dict(self._hypers)

    def __getitem__(self, name: str) -> Any:
        return tuple(self._params) if name == "params" else self._hypers[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Sets several hyperparameters at once, or none when one of them is wrong."""
        changes = dict(*args, **kwargs)
        if "params" in changes:
            raise TypeError("a group's arrays cannot be replaced; use add_param_group or make a new optimizer")
        unknown = [name for name in changes if name not in self._hypers]
        if unknown:
            known = ", ".join(self._hypers)
            raise TypeError(f"{self._label} has no hyperparameter {unknown[0]!r}; it has {known}")
        self.adopt(self.prepare({**self._hypers, **changes}))

    def __delitem__(self, name: str) -> None:
        raise TypeError("a group's entries cannot be deleted; a hyperparameter always has a value")

    def __iter__(self) -> Iterator[str]:
        yield "params"
        yield from self._hypers

    def __len__(self) -> int:
        return 1 + len(self._hypers)

    # Of dicts with arrays one cannot ask whether they are equal; a group is itself, for `index` and `in`.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        hypers = ", ".join(f"{name}={value!r}" for name, value in self._hypers.items())
        return f"ParamGroup({len(self._params)} arrays, {hypers})"


def is_group(entry: Any) -> bool:
    """Whether something is a group as constructors take it."""
    return isinstance(entry, Mapping) and "params" in entry


def without_params(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A group's hyperparameters."""
    return {name: value for name, value in entry.items() if name != "params"}
