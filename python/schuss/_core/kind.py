"""What a class of optimizers says about itself: which rule its hyperparameters stand for, and how.

Groups read it from the class; nothing here knows arrays' memory, groups or steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from schuss._arrays import layout
from schuss._core.options import Options
from schuss._core.rules import RULES


class Kind(Options):
    """The base of `Optimizer` with what subclasses override."""

    #: Whether a step is one rule over each array, which is what `schuss.functional` offers.
    _single_rule: ClassVar[bool] = True
    #: What is set for the optimizer as a whole, by attributes that are part of its state.
    _settings: ClassVar[tuple[str, ...]] = ("max_grad_norm", "nonfinite")
    #: What the class is called in messages and checkpoints, where that is not its name.
    _label: ClassVar[str | None] = None
    #: Whether its parameters may lie on a GPU.
    _on_gpu: ClassVar[bool] = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        """The name of the rule that these hyperparameters stand for; a class made from another has that one's."""
        names = [kind.__name__.lower() for kind in cls.__mro__]
        return next((name for name in names if name in RULES), names[0])

    @classmethod
    def _array_rule(cls, hypers: Mapping[str, Any], array: np.ndarray) -> str:
        """The rule for one array, where arrays of one group differ in it."""
        return cls._rule(hypers)

    @classmethod
    def _structure(cls, hypers: Mapping[str, Any]) -> tuple[Any, ...]:
        """What is settled when the optimizer is made: the rule, and with it the state arrays."""
        return (cls._rule(hypers),)

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        """The rule's own hyperparameters; the entries of a pair end in 1 and 2, those of betas are beta1 and beta2."""
        values = dict(hypers)
        for name, value in hypers.items():
            if isinstance(value, tuple):
                name = name.removesuffix("s") if name == "betas" else name
                values[f"{name}1"], values[f"{name}2"] = value
        return values

    @classmethod
    def _typed_rule_values(cls, hypers: Mapping[str, Any], dtype: np.dtype[Any]) -> Mapping[str, float]:
        """The same for parameters of a dtype, where it matters."""
        return cls._rule_values(hypers)

    @classmethod
    def _decay(cls, hypers: Mapping[str, Any]) -> str:
        """How weight decay acts: "l2", "decoupled", "independent", or "own" where the rule itself applies it."""
        return "l2"

    @classmethod
    def _matrix(cls, array: np.ndarray) -> layout.Matrix:
        """The matrix that an array is to a rule with rows or columns."""
        return layout.last_axes(array)

    @classmethod
    def _takes_int8(cls, hypers: Mapping[str, Any]) -> bool:
        """Whether eight bits are enough for the state."""
        return False

    @classmethod
    def _check(cls, hypers: Mapping[str, Any]) -> None:
        """Raises ValueError when hyperparameters exclude each other."""
