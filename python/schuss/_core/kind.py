"""The class-level description of an optimizer: which update rule it uses, and how hyperparameters map to that rule.

Groups read it from the class; nothing here knows arrays' memory, groups or steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from schuss._arrays import checks, formats, layout
from schuss._core.declaration import REQUIRED
from schuss._core.options import Options
from schuss._core.rules import RULES

#: What an eps counts as, at least, that is added to squares before they are averaged: a share of 2**-23 of it is a
#: normal number of float32 and of bfloat16, so that the average is not 0.
LEAST_ADDED = 2.0**-103


def smallest_square(dtype: np.dtype[Any]) -> float:
    """The smallest number > 0 of the dtype that updates of such parameters are computed in."""
    kind = checks.compute_dtype(dtype).type
    return float(np.nextafter(kind(0), kind(1)))  # both of that type: NumPy 1 makes a float64 of a float32 and an int


class Kind(Options):
    """The base of `Optimizer` with the attributes and methods that subclasses override."""

    #: Whether a step applies one rule to each array separately; `schuss.functional` and `Offload` need that.
    _single_rule: ClassVar[bool] = True
    #: The whole-optimizer attributes that can be set later and are saved with the state.
    _settings: ClassVar[tuple[str, ...]] = ("max_grad_norm", "nonfinite")
    #: The name in messages and checkpoints, if it is not the class's name.
    _label: ClassVar[str | None] = None
    #: Whether processes can share its arrays, see `schuss.mpi`.
    _shareable: ClassVar[bool] = True
    #: Whether its parameters may be on a GPU.
    _on_gpu: ClassVar[bool] = True
    #: Whether a step is one update, which a wrapper can follow.
    _wrappable: ClassVar[bool] = True
    #: How weight decay acts: "l2", "decoupled", "independent", or "own" if the rule itself applies it.
    _decay_form: ClassVar[str] = "l2"
    #: Whether eps is added to a square, before its root is taken.
    _eps_in_square: ClassVar[bool] = False
    #: Why no schedule of the learning rate can set the momentum, or the first of betas, if so.
    _fixed_momentum: ClassVar[str] = ""
    #: Whether the state can be stored as int8.
    _int8: ClassVar[bool] = False
    #: Whether a step may be over some rows alone: slices along the first axis, which its rule's rows are then too.
    _by_rows: ClassVar[bool] = False
    #: The hyperparameters that states saved by older versions lack, with their values there.
    _old_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        """The name of the rule for these hyperparameters; by default a subclass uses its base's."""
        names = [kind.__name__.lower() for kind in cls.__mro__]
        name = next((name for name in names if name in RULES), names[0])
        return f"{name}_cautious" if hypers.get("cautious") else name

    @classmethod
    def _array_rule(cls, hypers: Mapping[str, Any], array: np.ndarray) -> str:
        """The rule for one array; override it if arrays of one group use different rules."""
        return cls._rule(hypers)

    @classmethod
    def _array_states(cls, hypers: Mapping[str, Any], array: np.ndarray) -> tuple[formats.State, ...]:
        """The states of one array, in order; override it if they have shapes of their own."""
        states = RULES[cls._array_rule(hypers, array)].states
        if not cls._by_rows:
            return states
        rows = layout.rows_shape(array.shape)
        return tuple(state._replace(own_shape=rows) if state.scope == "row" else state for state in states)

    @classmethod
    def _structure(cls, hypers: Mapping[str, Any]) -> tuple[Any, ...]:
        """What is fixed when the optimizer is made: the rule, and with it the state arrays."""
        return (cls._rule(hypers),)

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        """The hyperparameters under the rule's names: a tuple ``x`` becomes ``x1``, ``x2``; betas beta1, beta2."""
        values = dict(hypers)
        for name, value in hypers.items():
            if isinstance(value, tuple):
                name = name if name == "eps" else name.removesuffix("s")
                values |= {f"{name}{i}": entry for i, entry in enumerate(value, start=1)}
        if "cautious" in hypers:
            values["plus_one"] = hypers["cautious"] == "plus_one"
        return values

    @classmethod
    def _typed_rule_values(cls, hypers: Mapping[str, Any], dtype: np.dtype[Any]) -> Mapping[str, float]:
        """The values of `_rule_values` for parameters of one dtype; override it if more than eps depends on the dtype.

        An eps is at least the root of the smallest square, or the smallest square: 0 / (0 + eps) is 0.
        """
        values = cls._rule_values(hypers)
        if "eps" not in values:
            return values
        square = cls._eps_in_square or hypers.get("eps_inside_sqrt", False)
        smallest = smallest_square(dtype)
        return {**values, "eps": max(values["eps"], smallest if square else math.sqrt(smallest))}

    @classmethod
    def _decay(cls, hypers: Mapping[str, Any]) -> str:
        """How weight decay acts with these hyperparameters; a rule that applies it reads the option itself."""
        if cls._decay_form == "own" or "decoupled_weight_decay" not in hypers:
            return cls._decay_form
        return "decoupled" if hypers["decoupled_weight_decay"] else "l2"

    @classmethod
    def _by_first_rate(cls, hypers: Mapping[str, Any]) -> str | None:
        """What divides by the group's first learning rate, in words; None if nothing does.

        A rule that does it itself has a hyperparameter ``initial_lr``, which is the group's.
        """
        return 'decay_form "independent"' if hypers.get("decay_form") == "independent" else None

    @classmethod
    def _matrix(cls, hypers: Mapping[str, Any], array: np.ndarray) -> layout.Matrix:
        """How a rule with rows or columns sees an array as a matrix."""
        return layout.of_outputs(np.atleast_1d(array), "out_in") if cls._by_rows else layout.last_axes(array)

    @classmethod
    def _takes_int8(cls, hypers: Mapping[str, Any]) -> bool:
        """Whether the state can be stored as int8 with these hyperparameters."""
        # Repeated rounding would make the maxima grow.
        return cls._int8 and not (hypers.get("amsgrad") or hypers.get("amsbound"))

    @classmethod
    def _takes_rows(cls, hypers: Mapping[str, Any], array: np.ndarray) -> bool:
        """Whether a step may be over some rows of an array alone with these hyperparameters."""
        return cls._by_rows

    @classmethod
    def _with_obstacles(cls, hypers: Mapping[str, Any], can: Callable[[Mapping[str, Any]], bool]) -> str:
        """The class's name, with the hyperparameters because of which `can` is false if there are any."""
        name = cls._label or cls.__name__
        usual = {key: field.default for key in hypers if (field := cls._parameters[key]).default is not REQUIRED}
        if not can({**hypers, **usual}):
            return name
        wrong = [f"{key}={hypers[key]!r}" for key in usual if not can({**hypers, **usual, key: hypers[key]})]
        return f"{name} with {', '.join(wrong)}" if wrong else name

    @classmethod
    def _check(cls, hypers: Mapping[str, Any]) -> None:
        """Raises ValueError if hyperparameters exclude each other."""
