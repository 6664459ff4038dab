"""The update rules as functions, if you manage optimizer state yourself.

One function per class: ``adamw_`` for `schuss.AdamW`, and so on. Each updates a parameter and its state in place:

``adamw_(p, g, m, v, *, step, lr=..., betas=..., ...)``

- ``p``: the parameter, a writable contiguous array of float32, float64, float16 or bfloat16;
- ``g``: its gradient, of the same shape;
- the state arrays, in the order of ``state_dict()["state"][0]``: with the shapes there and the parameter's memory
  order, float64 for float64 parameters and float32 for all others (a scalar state is always float64). Initialize them
  yourself: ``x0``, ``ax`` and the schedule-free classes' ``z`` with a copy of the parameter, ``mu_product`` with 1, all
  others with zeros unless the class has a keyword for the initial value;
- ``step``: the number of this step, counted from 1;
- the class's hyperparameters as keywords, with its defaults; ``lr`` must be a number. ``adamw_`` with
  ``decay_form="independent"``, ``adabound_`` and ``mars_`` also take ``initial_lr``, which defaults to ``lr``.

Classes whose step is more than one rule over one array have no function: `schuss.NAG` is ``sgd_`` with momentum, given
gradients from the look-ahead point; `schuss.Ranger` is `schuss.centralize_`, then ``radam_`` with
``decoupled_weight_decay=True``, then a synchronization; `schuss.Prodigy`, `schuss.DAdaptAdam`, `schuss.DAdaptSGD`,
`schuss.DoG` and `schuss.Adai` have numbers that all arrays share; `schuss.Newton` solves one system over all
parameters, and `schuss.Muon`, `schuss.SOAP` and `schuss.Shampoo` multiply matrices.

Results are bit-identical to the class without ``max_grad_norm``, which needs all gradients: to clip them, call
`schuss.clip_grad_norm_` first. `schuss.LAMB` clips to a norm of 1 by default, and ``lamb_`` does not. Invalid arrays
and values raise the same errors, before anything is changed.

Examples
--------
>>> import numpy as np
>>> from schuss import functional
>>> p, m, v = np.ones(2), np.zeros(2), np.zeros(2)
>>> functional.adam_(p, np.array([3.0, -4.0]), m, v, step=1, lr=0.1, eps=0.0)
>>> p
array([0.9, 1.1])
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schuss import _schuss
from schuss._arrays import checks
from schuss._core import validate
from schuss._core.declaration import REQUIRED
from schuss._core.group import ParamGroup
from schuss._core.optimizer import Optimizer
from schuss._core.rules import RULES
from schuss.optimizers import OPTIMIZERS


class _Prepared(NamedTuple):
    """Checked hyperparameters, and for each dtype of parameters what takes plain arrays without further checks here."""

    group: ParamGroup
    steppers: dict[np.dtype[Any], _schuss.Stepper]


def _make(kind: type[Optimizer]) -> Callable[..., None]:
    name = f"{kind.__name__.lower()}_"
    hypers = {name: field.default for name, field in kind._parameters.items() if field.init and not field.whole}
    divides = "decay_form" in hypers or "initial_lr" in RULES[kind._array_rule(hypers, np.empty(0))].hypers
    keywords = {**hypers, "initial_lr": None} if divides else hypers

    # Typed because 1 == True, but a number is no valid flag, nor a flag a number.
    @functools.lru_cache(maxsize=64, typed=True)
    def prepared(**given: Any) -> _Prepared:
        values = {**keywords, **given}
        unknown = [key for key in values if key not in keywords]
        if unknown:
            raise TypeError(f"{name} got an unexpected keyword {unknown[0]!r}; it takes {', '.join(keywords)}")
        missing = [key for key, value in values.items() if value is REQUIRED]
        if missing:
            raise TypeError(f"{name} needs {missing[0]}, which has no default")
        scheduled = [key for key, value in values.items() if validate.is_schedule(value)]
        if scheduled:
            raise TypeError(f"{scheduled[0]} must be a number here: call the schedule yourself")
        initial_lr = values.pop("initial_lr", None)
        if initial_lr is not None:
            initial_lr = validate.number("initial_lr", initial_lr, open_low=True)
        return _Prepared(ParamGroup(kind, [], values, "", initial_lr), {})

    def function(p: np.ndarray, g: Any, *states: np.ndarray, step: int, **given: Any) -> None:
        try:
            known = prepared(**given)
        except TypeError:  # a value that cannot be hashed, or a wrong one
            known = None
        group, steppers = known or prepared.__wrapped__(**given)
        if type(p) is np.ndarray and type(step) is int and 0 < step < 2**63:
            stepper = steppers.get(p.dtype)
            if stepper is not None and stepper(step, p, g, states):
                return
        step = validate.whole_number("step", step, 1, 2**63)
        if isinstance(p, Mapping) or (isinstance(p, (list, tuple)) and any(hasattr(entry, "shape") for entry in p)):
            raise TypeError(f"p is a {type(p).__name__}, but {name} takes one array; call it for each")
        checks.check_written("p", p)
        rule = group.rule_for(p)
        wanted = group.states_for(p)
        if len(states) != len(wanted):
            listed = ", ".join(["p", "g", *(own.name for own in wanted)])
            raise TypeError(f"{name} takes {listed} with these hyperparameters, got {len(states)} state arrays")
        for own, state in zip(wanted, states, strict=True):
            checks.check_written(own.name, state)
            checks.check_like(own.name, state, "p's state", own.shape(p.shape), own.dtype(p))
            order = checks.order(p)
            if not (state.flags.c_contiguous if order == "C" else state.flags.f_contiguous):
                raise ValueError(f"{own.name} must lie in memory as p does; make it with order={order!r}")
        checks.check_no_overlap(
            zip(["p", *(own.name for own in wanted)], [p, *states], strict=True), "pass arrays that share no memory"
        )
        gradient = checks.as_gradient("g", g, "p", p)
        if any(np.may_share_memory(gradient, array) for array in (p, *states)):
            gradient = gradient.copy(checks.order(gradient))
        matrix = kind._matrix(group.hypers, p) if RULES[rule].needs_matrix else None
        packed = group._packed_values(rule, p.dtype)
        _schuss.Job(rule, "step", [packed], step, [p], [gradient], [states], [matrix]).run()
        one_rule = kind._array_rule.__func__ is Optimizer._array_rule.__func__  # type: ignore[attr-defined]
        if one_rule and not RULES[rule].needs_matrix and not RULES[rule].shared:
            steppers[p.dtype] = _schuss.Stepper(rule, packed.tolist(), p)

    only = inspect.Parameter.KEYWORD_ONLY
    named = [inspect.Parameter("step", only)]
    named += [inspect.Parameter(key, only, default=_empty(value)) for key, value in keywords.items()]
    positional = [inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD) for key in ("p", "g")]
    states = [inspect.Parameter("states", inspect.Parameter.VAR_POSITIONAL)]
    function.__signature__ = inspect.Signature(positional + states + named)  # type: ignore[attr-defined]
    function.__name__ = function.__qualname__ = name
    bound = kind._parameters["max_grad_norm"].default
    clips = ""
    if bound is not None:
        clips = f" The class clips to a norm of {bound:g} by default; for that call `schuss.clip_grad_norm_` first."
    function.__doc__ = (
        f"One step of `schuss.{kind.__name__}` on one array whose state the caller owns.\n\n"
        f"Hyperparameters, errors and equation are those of `schuss.{kind.__name__}`; the arguments in front of them "
        f"are explained in `schuss.functional`.{clips}"
    )
    return function


def _empty(default: Any) -> Any:
    return inspect.Parameter.empty if default is REQUIRED else default


_functions = {f"{name.lower()}_": _make(kind) for name, kind in OPTIMIZERS.items() if kind._single_rule}
globals().update(_functions)


def __getattr__(name: str) -> Callable[..., None]:  # also declares the functions to type checkers
    raise AttributeError(f"module 'schuss.functional' has no function {name!r}; it has {', '.join(_functions)}")


if not TYPE_CHECKING:

    def __dir__() -> list[str]:
        return list(_functions)
