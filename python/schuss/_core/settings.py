"""What users see and set of an optimizer: its rate, counts, norms and options. An unknown attribute is an error.

It knows groups, but neither states nor how a step is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from schuss import _schuss
from schuss._backends.protocol import Backend, Change, Counters, Limits
from schuss._core import validate
from schuss._core.callbacks import Callbacks
from schuss._core.declaration import Field, meant
from schuss._core.group import ParamGroup


def setting(name: str, doc: str) -> Any:
    """A property for an option that can be changed later; setting it checks the value."""
    return property(lambda self: self._option(name), lambda self, value: self._change(name, value), doc=doc)


class Settings(Callbacks):
    """The base of `Optimizer` with these attributes."""

    _parameters: ClassVar[Mapping[str, Field]]
    #: The constructor's values of what groups have.
    _defaults: dict[str, Any]
    _backend: Backend
    _max_grad_norm: float | None
    _track_grad_norm: bool
    _nonfinite: str
    _label: ClassVar[str | None]
    #: The numbers of steps taken and skipped when this optimizer took the place of another, and the norms of the
    #: other's last step.
    _earlier_norms: tuple[tuple[int, ...], tuple[float | None, float | None]] = ((), (None, None))

    def _name(self) -> str:
        return self._label or type(self).__name__

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The groups of parameters, in order; ``param_groups[0]["lr"] = ...`` sets a hyperparameter."""
        return tuple(self._groups)

    @property
    def step_count(self) -> int:
        """Steps taken: the argument of schedules.

        Setting it starts there: the optimizer and all its groups and arrays have then taken so many steps, also for
        bias corrections. States stay: set it together with those of that step, since some begin at the first step, such
        as those of ASGD, Rprop and SOAP, and Adam's with ``catch_up=True`` have the step of each row.
        """
        count: int = _schuss.Core.step_count.__get__(self)
        return count

    @step_count.setter
    def step_count(self, value: int) -> None:
        steps = validate.steps("step_count", value)
        skipped, groups = self._read_counters().skipped, [steps] * len(self.param_groups)
        self._backend.changes(self._counted(Counters(steps, skipped, groups, []))).make()

    def _norms_of_step(self) -> tuple[float | None, float | None]:
        """The norm of the last step's gradients and its bound."""
        return self._backend.norms(self)

    def _norms_now(self) -> tuple[float | None, float | None]:
        """The norm and bound of the last step, which another optimizer may have taken before this one replaced it."""
        counts, norms = self._earlier_norms
        return norms if (self.step_count, self.skipped_steps) == counts else self._norms_of_step()

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the last step's gradients, before clipping; also of a step that was skipped.

        None unless ``max_grad_norm`` or ``track_grad_norm`` is set. The gradients are divided by ``grad_scale`` first.
        On a GPU this waits for the step to finish.
        """
        return self._norms_now()[0]

    @property
    def clip_factor(self) -> float | None:
        """What the last step multiplied its gradients by to clip them: 1.0 if they were within ``max_grad_norm``.

        None if there was no bound, or the step was skipped.
        """
        norm, bound = self._norms_now()
        if norm is None or bound is None:
            return None
        factor = bound / (norm + 1e-6)
        return 1.0 if factor > 1.0 else factor  # NaN stays NaN, as in the step

    def metrics(self) -> dict[str, float]:
        """What to log after a step, as a flat dict of numbers.

        Returns
        -------
        dict
            ``step``, ``skipped_steps``, ``lr`` (of the next step; with several groups ``lr/0``, ``lr/1``, ...; none
            where the optimizer finds its own), and ``grad_norm`` and ``clip_factor`` where the last step measured them.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> opt = schuss.SGD(np.zeros(2), lr=0.5, max_grad_norm=10.0)
        >>> opt.step(np.array([3.0, 4.0]))
        True
        >>> opt.metrics()
        {'step': 1, 'skipped_steps': 0, 'lr': 0.5, 'grad_norm': 5.0, 'clip_factor': 1.0}
        """
        groups = self.param_groups
        names = ["lr"] if len(groups) == 1 else [f"lr/{i}" for i in range(len(groups))]
        rates = {name: group.current("lr") for name, group in zip(names, groups, strict=True)}
        found = {**rates, "grad_norm": self.grad_norm, "clip_factor": self.clip_factor}
        known = {name: value for name, value in found.items() if value is not None}
        return {"step": self.step_count, "skipped_steps": self.skipped_steps, **known}

    # Type checkers know these by the declarations in Options and in each class, and refuse unknown attributes.
    if not TYPE_CHECKING:

        @property
        def lr(self):
            """The learning rate of the next step, also under a schedule; setting it sets that of all groups.

            An AttributeError where groups have different rates: those are in `param_groups`.
            """
            return self._one_rate(lambda group: group.current("lr"))

        @lr.setter
        def lr(self, value):
            self._one_rate(lambda group: group["lr"])
            changes = [group.changes(group.with_rate(value)) for group in self.param_groups]
            attributes = [change for own, _ in changes for change in own]
            _schuss.Changes(attributes, copies=[copy for _, own in changes for copy in own]).make()

        track_grad_norm = setting("track_grad_norm", "Whether steps measure the norm also without a bound on it.")
        max_grad_norm = setting("max_grad_norm", "The bound on the global gradient norm, or None.")
        nonfinite = setting(
            "nonfinite", 'What a step does about NaN and infinities in gradients: "propagate", "skip" or "error".'
        )

        def __setattr__(self, name, value):
            # A user's subclass may have attributes of its own.
            own = name.startswith("_") or hasattr(type(self), name)
            if not own and type(self).__module__.startswith("schuss."):
                self._refuse_attribute(name)
            super().__setattr__(name, value)

    def _one_rate(self, rate_of: Callable[[ParamGroup], Any]) -> Any:
        rates = [rate_of(group) for group in self.param_groups]
        if any(rate != rates[0] for rate in rates[1:]):
            raise AttributeError(f'lr is {rates} in the groups; read and set opt.param_groups[i]["lr"]')
        return rates[0]

    def _refuse_attribute(self, name: str) -> None:
        known = [own for own in dir(type(self)) if isinstance(getattr(type(self), own), property)]
        known = [own for own in (*known, *self._defaults) if not own.startswith("_")]
        near = meant(name, known)
        advice = f"; did you mean opt.{near}?" if hasattr(type(self), near) else f"; set opt.param_groups[i][{near!r}]"
        raise AttributeError(f"{self._name()} has no attribute {name!r}{advice if near else ''}")

    def _checked(self, name: str, value: Any, place: str | None = None) -> Any:
        """Checks a new value for an option and returns it."""
        return self._parameters[name].check(place or name, value)

    def _option(self, name: str) -> Any:
        """The current value of an option that can be changed."""
        return getattr(self, f"_{name}")

    def _change(self, name: str, value: Any) -> None:
        """Sets an option that can be changed."""
        self._backend.changes(self._changed({name: self._checked(name, value)})).make()

    def _changed(self, checked: Mapping[str, Any]) -> list[Change]:
        """What changes when options have these values, which were checked."""
        if not checked:
            return []
        attributes = [(self, f"_{name}", value) for name, value in checked.items()]
        limits = {name: value for name, value in checked.items() if name in Limits._fields}
        return [*attributes, *self._limits_changed(self._limits_now()._replace(**limits))]

    def _limits_now(self) -> Limits:
        return Limits(self._max_grad_norm, self._track_grad_norm, self._nonfinite)

    def _limits_changed(self, limits: Limits) -> list[Change]:
        return self._backend.limits(self, limits)

    def _read_counters(self) -> Counters:
        return self._backend.counters(self)

    def _counted(self, counters: Counters) -> list[Change]:
        """What changes when the counters have these values."""
        return self._backend.counted(self, counters)
