"""A class declares its hyperparameters; signature, checks and help follow from the declaration."""

import inspect
import math
import pickle
import re
from typing import Annotated, ClassVar, Literal

import numpy as np
import pytest

import schuss
from schuss._core.declaration import option
from schuss._core.hyperparameters import Betas, Bound, Range, Rate, check_of
from schuss._core.rules import RULES

each_class = pytest.mark.parametrize("kind", schuss.OPTIMIZERS.values(), ids=lambda kind: kind.__name__)


class Sgd2(schuss.Optimizer):
    """Gradient descent; the class's name is not its rule's name."""

    lr: Rate = 0.5
    weight_decay: float = 0.0

    @classmethod
    def _rule(cls, hypers):
        return "sgd"

    @classmethod
    def _rule_values(cls, hypers):
        return dict.fromkeys(RULES["sgd"].hypers, 0.0)


class Sgd3(Sgd2):
    weight_decay: float = 0.25
    tag: ClassVar[str] = "no parameter"
    _cache: dict = None
    max_grad_norm: Bound | None = option(default=2.0, kw_only=True)


class Plain(schuss.Adam):
    pass


class Own(schuss.Adam):
    def __init__(self, params):
        super().__init__(params, 0.5, eps=0.0)
        self.note = "mine"


OPTIONS = [
    "maximize", "max_grad_norm", "track_grad_norm", "nonfinite", "state_dtype", "state_rounding", "state_seed",
    "master_weights",
]  # fmt: skip


def parameters(kind, sort):
    return [name for name, p in inspect.signature(kind).parameters.items() if p.kind is sort]


def test_a_declaration_is_a_constructor():
    assert parameters(Sgd2, inspect.Parameter.POSITIONAL_OR_KEYWORD) == ["params", "lr", "weight_decay"]
    assert parameters(Sgd2, inspect.Parameter.KEYWORD_ONLY) == OPTIONS
    assert inspect.signature(Sgd2).parameters["lr"].default == 0.5
    w = np.ones(2)
    Sgd2(w).step(np.ones(2))
    assert w.tolist() == [0.5, 0.5]
    with pytest.raises(TypeError, match=r"^Sgd2\.__init__\(\) missing 1 required positional argument: 'params'$"):
        Sgd2()
    with pytest.raises(TypeError, match=r"^Sgd2 has no option 'rate': use lr; it takes lr, weight_decay, maximize, "):
        Sgd2(w, rate=1.0)
    with pytest.raises(ValueError, match=r"^weight_decay must be a number >= 0, got -1\.0$"):
        Sgd2(w, weight_decay=-1.0)


def test_a_subclass_changes_defaults_and_keeps_the_order():
    assert parameters(Sgd3, inspect.Parameter.POSITIONAL_OR_KEYWORD) == ["params", "lr", "weight_decay"]
    opt = Sgd3(np.ones(2))
    assert (opt.param_groups[0]["weight_decay"], opt.max_grad_norm) == (0.25, 2.0)
    assert (Sgd3.tag, Sgd3._cache) == ("no parameter", None)
    assert not hasattr(opt, "weight_decay") and not hasattr(Sgd3, "weight_decay"), (
        "a default is no value of an optimizer"
    )
    assert Sgd2(np.ones(2)).max_grad_norm is None


def test_subclasses_of_a_class():
    w, x, y = np.ones(2), np.ones(2), np.ones(2)
    opt, plain = Own(w), Plain(x, 0.5, eps=0.0)
    schuss.Adam(y, 0.5, eps=0.0).step(np.ones(2))
    opt.step(np.ones(2))
    plain.step(np.ones(2))
    assert w.tolist() == x.tolist() == y.tolist() and opt.note == "mine"
    assert inspect.signature(Plain) == inspect.signature(schuss.Adam)
    assert type(pickle.loads(pickle.dumps(plain))) is Plain


@pytest.mark.parametrize("annotation", [list, float | str])
def test_what_is_no_hyperparameter_is_refused(annotation):
    with pytest.raises(TypeError, match=r"^Wrong\.names: .*is not the type of a hyperparameter; annotate .* ClassVar"):
        type("Wrong", (schuss.Optimizer,), {"__annotations__": {"names": annotation}})


@each_class
def test_options_are_keywords(kind):
    keywords = parameters(kind, inspect.Parameter.KEYWORD_ONLY)
    assert keywords == (OPTIONS[:4] if kind is schuss.Newton else OPTIONS)


@each_class
def test_the_docstring_documents_every_parameter_in_order(kind):
    doc = inspect.getdoc(kind)
    assert re.findall(r"^(\w+)\n-+$", doc, re.MULTILINE) == [
        section for section in ("Parameters", "Raises", "References", "Examples") if f"\n{section}\n-" in doc
    ]
    section = re.search(r"^Parameters\n-+\n(.*?)\n\n", doc, re.MULTILINE | re.DOTALL)[1]
    named = [
        name for entry in re.findall(r"^\S.*", section, re.MULTILINE) for name in entry.split(" : ")[0].split(", ")
    ]
    assert named == list(inspect.signature(kind).parameters)
    for name, parameter in inspect.signature(kind).parameters.items():
        said = re.search(rf"^{name} : .*?(?:default (.*))?$", section, re.MULTILINE)
        if said and parameter.default is not inspect.Parameter.empty:
            assert eval(said[1] or "None", {"inf": math.inf}) == parameter.default


@pytest.mark.parametrize(
    ("hint", "good", "bad", "words"),
    [
        (float, [0.0, 2, np.float32(1.0)], [-1.0, math.inf, math.nan, True, "1", None], "a number >= 0"),
        (Annotated[float, Range(closed_high=True)], [math.inf], [math.nan, -1.0], "a number >= 0"),
        (Annotated[float, Range(low=4.0)], [4.0], [3.9], "a number >= 4"),
        (float | None, [None, 1.0], [-1.0, "1"], "a number >= 0"),
        (bool, [True, np.False_], [1, None], "True or False"),
        (int, [1, np.int64(7)], [0, 1.0, True], "a whole number >= 1"),
        (Annotated[int, Range(low=0)], [0], [-1], "a whole number >= 0"),
        (Literal["a", "b"], ["a"], ["c", None], "'a' or 'b'"),
        (Betas, [(0.0, 0.9), [0.1, 0.2]], [(1.0, 0.0), 0.9, (0.1,), None], "number"),
        (tuple[float | None, float], [(None, 1e-3), (0.1, 0.2)], [(0.1, None), None, (-1.0, 0.0)], "number"),
    ],
)
def test_types_say_what_is_allowed(hint, good, bad, words):
    check = check_of(hint)
    for value in good:
        result = check("place", value)
        assert result == (tuple(value) if isinstance(value, list) else value)
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=rf"^place(\[\d\])? must be .*{words}"):
            check("place", value)
    assert "a pair of a number >= 0 or None and a number >= 0, got 3" in str(_error(tuple[float | None, float], 3))


def _error(hint, value):
    with pytest.raises(TypeError) as caught:
        check_of(hint)("place", value)
    return caught.value
