"""Constructors are declarations: an annotation on a class is a parameter of its constructor.

::

    class Lion(Optimizer):
        lr: Rate = 1e-4
        betas: Betas = (0.9, 0.99)
        weight_decay: float = 0.0

has the constructor ``Lion(params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, *, maximize=False, ...)``. Type
checkers see it through ``dataclass_transform``; `Declaration` builds it when the class is created. Nothing here knows
an optimizer, and of options only what others call them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_origin

from schuss._core import hyperparameters, validate

if TYPE_CHECKING:
    from dataclasses import InitVar as InitVar

    from typing_extensions import dataclass_transform
else:
    # Only type checkers need the real ones: `dataclasses` imports `inspect`, Python 3.10 has no `dataclass_transform`.
    class InitVar:
        """A constructor parameter that is not an attribute."""

        def __class_getitem__(cls, kind):
            return kind

    def dataclass_transform(**_):
        """Does nothing at run time; type checkers read it."""
        return lambda cls: cls


class _Required:
    def __repr__(self) -> str:
        return "<required>"


REQUIRED: Any = _Required()


class Field(NamedTuple):
    """One parameter of a constructor."""

    name: str
    type: Any
    check: validate.Check
    default: Any = REQUIRED
    #: Whether it is keyword-only.
    kw_only: bool = False
    #: False removes an inherited parameter from the constructor.
    init: bool = True
    #: Whether it applies to the whole optimizer, so that groups cannot override it.
    whole: bool = False


class _Option(NamedTuple):
    default: Any
    kw_only: bool
    init: bool
    whole: bool


def option(*, default: Any, kw_only: bool = False, init: bool = True, whole: bool = False) -> Any:
    """A default with options: a keyword-only parameter, one that groups cannot override, none with ``init=False``."""
    return _Option(default, kw_only, init, whole)


@dataclass_transform(field_specifiers=(option,))
class Declaration:
    """The base of classes whose annotations are their constructor's parameters.

    Names with a leading underscore and ``ClassVar`` are ordinary attributes. An ``__init__`` in the class is kept.
    """

    #: The parameters after `params`, in order; those of base classes come first.
    _parameters: ClassVar[Mapping[str, Field]] = MappingProxyType({})

    def __init_subclass__(cls, *, kw_only: bool = False, whole: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {field.name: field for field in _declared(cls, kw_only, whole)}
        for name in own:
            # A default left on the class would look like the value of an instance.
            if name in vars(cls):
                delattr(cls, name)
        if not own:
            return
        # Keyword-only parameters come last, as in the signature.
        fields = sorted({**cls._parameters, **own}.values(), key=lambda field: field.kw_only)
        cls._parameters = MappingProxyType({field.name: field for field in fields})
        if "__init__" not in vars(cls):
            cls.__init__ = _Later("__init__", cls, _constructor)  # type: ignore[method-assign, assignment]
            if vars(cls).get("__doc__"):
                doc = vars(cls)["__doc__"]
                cls.__doc__ = _Later("__doc__", cls, lambda cls: cls._documented(doc))  # type: ignore[assignment]

    @classmethod
    def _documented(cls, doc: str) -> str:
        """The completed docstring of a class with a generated constructor."""
        return doc

    def _setup(self, params: Any, hypers: dict[str, Any], whole: dict[str, Any]) -> None:
        """The body of the constructor; `hypers` and `whole` have their defaults filled in."""
        raise NotImplementedError


class _Later:
    """A class attribute created on first access: most programs use few of the classes."""

    def __init__(self, name: str, cls: type[Declaration], make: Callable[[type[Declaration]], Any]) -> None:
        self._name, self._cls, self._make = name, cls, make

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        made = self._make(self._cls)
        setattr(self._cls, self._name, made)
        return made.__get__(instance, owner) if hasattr(made, "__get__") else made


@functools.cache
def _code(text: str) -> Any:
    return compile(text, "<annotation>", "eval")


def _declared(cls: type[Declaration], kw_only: bool, whole: bool) -> list[Field]:
    result = []
    for name, hint in cls.__annotations__.items():
        if name.startswith("_") or name == "params":
            continue
        if isinstance(hint, str):  # under `from __future__ import annotations`
            hint = eval(_code(hint), vars(sys.modules[cls.__module__]), dict(vars(cls)))
        if ClassVar in (hint, get_origin(hint)):
            continue
        try:
            check = hyperparameters.check_of(hint)
        except TypeError as error:
            raise TypeError(
                f"{cls.__name__}.{name}: {error}; annotate attributes that are none with ClassVar, or give them a "
                "leading underscore"
            ) from None
        default = vars(cls).get(name, REQUIRED)
        if not isinstance(default, _Option):
            default = _Option(default, kw_only, True, whole)
        before = cls._parameters.get(name)
        belongs = default.whole if before is None else before.whole
        result.append(Field(name, hint, check, default.default, default.kw_only, default.init, belongs))
    return result


#: Names of options and classes in Keras, Optax and other packages, without underscores, and our names for them.
_OTHER_NAMES = {
    **dict.fromkeys(("learningrate", "stepsize", "eta"), "lr"),
    **dict.fromkeys(("mass", "mu"), "momentum"),
    **dict.fromkeys(("rho", "decayrate"), "alpha"),
    "wd": "weight_decay",
    **dict.fromkeys(("beta1", "beta2", "b1", "b2"), "betas"),
    "epsilon": "eps",
    **dict.fromkeys(("globalclipnorm", "clipgradnorm", "gradclip"), "max_grad_norm"),
    "SparseAdam": "Adam",
    **dict.fromkeys(("Momentum", "GradientDescent"), "SGD"),
}
#: Advice for options of PyTorch and Keras that have no counterpart here.
_WITHOUT = {
    **dict.fromkeys(("foreach", "fused", "capturable", "differentiable"), "leave it out"),
    "decoupled_weight_decay": "use a class that decouples it, such as AdamW",
    "lr_decay": "give a schedule, such as lr=schedules.inverse_time(lr, lr_decay)",
    "clipnorm": "call clip_grad_norm_ of each gradient, or use max_grad_norm for the norm over all",
    "clipvalue": "call clip_grad_value_ of the gradients",
}


def meant(name: str, known: Sequence[str]) -> str:
    """Which of the known names is probably meant; empty if none is."""
    import difflib

    same = [own for own in known if own.lower() == name.lower() or own == _OTHER_NAMES.get(name.replace("_", ""))]
    if same:
        return same[0]
    return next(iter(difflib.get_close_matches(name, known)), "lr" * ("rate" in name and "lr" in known))


def unknown_option(kind: str, name: str, known: Sequence[str]) -> TypeError:
    """The error for an option that a class does not have."""
    near = meant(name, known)
    advice = _WITHOUT.get(name, f"use {near}" if near else "")
    return TypeError(f"{kind} has no option {name!r}{': ' * bool(advice)}{advice}; it takes {', '.join(known)}")


def _constructor(cls: type[Declaration]) -> Any:
    """An ``__init__`` with the class's parameters, which explains unknown ones."""
    inner = _compiled(cls)
    known = [field.name for field in cls._parameters.values() if field.init]

    @functools.wraps(inner)
    def constructor(self: Any, *args: Any, **given: Any) -> None:
        unknown = [name for name in given if name not in known and name != "params"]
        if unknown:
            raise unknown_option(cls.__name__, unknown[0], known)
        inner(self, *args, **given)

    return constructor


def _compiled(cls: type[Declaration]) -> Any:
    """An ``__init__`` with the class's parameters, compiled from source text as dataclasses do."""
    fields = [field for field in cls._parameters.values() if field.init]
    defaults = {f"_{field.name}": field.default for field in fields if field.default is not REQUIRED}

    def listed(chosen: list[Field]) -> list[str]:
        return [field.name + f"=_{field.name}" * (f"_{field.name}" in defaults) for field in chosen]

    def passed(whole: bool) -> str:
        return ", ".join(f"{field.name!r}: {field.name}" for field in fields if field.whole is whole)

    positional = listed([field for field in fields if not field.kw_only])
    keywords = listed([field for field in fields if field.kw_only])
    parameters = ", ".join(["self", "params", *positional, *["*"] * bool(keywords), *keywords])
    source = f"def __init__({parameters}):\n    self._setup(params, {{{passed(False)}}}, {{{passed(True)}}})\n"
    exec(compile(source, f"<constructor of {cls.__qualname__}>", "exec"), defaults)
    function = defaults["__init__"]
    function.__qualname__, function.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    types = {field.name: hyperparameters.plain(field.type) for field in fields}
    function.__annotations__ = {"params": Any, **types, "return": None}
    return function
