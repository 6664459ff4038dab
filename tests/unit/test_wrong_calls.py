"""Each wrong call raises exactly its error and changes nothing. The table of calls is data/wrong_calls.txt."""

import copy
import inspect
import math
from collections import UserDict

import numpy as np
import pytest
from cases import MOVING
from helpers import DATA, OPTIMIZER_OPTIONS, STATE_OPTIONS, assert_same, assert_unchanged, leaves, snapshot

import schuss

F32 = np.float32


def table():
    """The rows of wrong_calls.txt: calls and their errors."""
    lines = (DATA / "wrong_calls.txt").read_text(encoding="utf-8").splitlines()
    return [(line[4:], lines[i + 1]) for i, line in enumerate(lines) if line.startswith(">>> ")]


def array(*shape, dtype=F32):
    """Ones in newly allocated memory."""
    return np.ones(shape, dtype)


def put(structure, leaf, *path):
    """A copy of a structure in which the leaf at a path is replaced."""
    other = copy.copy(structure)
    other[path[0]] = put(structure[path[0]], leaf, *path[1:]) if len(path) > 1 else leaf
    return other


class Lazy:
    """An object that NumPy converts to an array, or fails to."""

    def __init__(self, outcome):
        self.outcome = outcome

    def __array__(self, dtype=None, copy=None):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def scene():
    """The names that the calls of the table use: optimizers that have taken steps, valid arrays, arrays to change."""
    rng = np.random.default_rng(5)
    a, b, c, d, e, f, g, h = (rng.standard_normal(s).astype(F32) for s in [(2, 3), (3,), (4,), ()] * 2)
    opt = schuss.AdamW({"layer": {"w": a, "b": b}, "rest": [c, d]}, lr=0.1)
    grads = {"layer": {"w": e, "b": f}, "rest": [g, h]}
    opt.step(grads)
    one, two = array(3), array(4)
    groups = schuss.SGD([{"params": [one]}, {"params": two, "lr": 0.5}], momentum=0.9)
    groups.step([[array(3)], array(4)])
    table = schuss.Adam({"emb": array(5, 2), "b": array(), "turned": np.ones((2, 3), F32, order="F")}, lr=0.1)
    table.step_rows({"emb": ([1], array(1, 2))}, partial=True)
    read_only = array(3)
    read_only.flags.writeable = False
    loop = []
    loop.append(loop)
    names = dict(opt=opt, table=table, grads=grads, groups=groups, one=one, two=two, read_only=read_only, loop=loop)
    todo = []
    late = schuss.Adam(array(3), lr=lambda step: todo[0]() if todo else 0.1)
    names |= dict(todo=todo, late=late, state=copy.deepcopy(opt.state_dict()), long=array(5))
    names |= dict(p=array(3), g=array(3), m=np.zeros(3, F32), v=np.zeros(3, F32), memory=np.zeros(48, np.uint8))
    tools = dict(np=np, nan=math.nan, inf=math.inf, array=array, put=put, Lazy=Lazy, UserDict=UserDict, schuss=schuss)
    classes = dict(SGD=schuss.SGD, Adam=schuss.Adam, AdamW=schuss.AdamW, functional=schuss.functional)
    return names | tools | classes


def everything(names):
    """Everything that a call could change: all arrays, counts and settings."""
    optimizers = [names[name] for name in ("opt", "groups", "late", "table")]
    loose = [names[name] for name in ("one", "two", "long", "p", "g", "m", "v", "memory", "read_only")]
    held, steps = zip(*map(snapshot, optimizers))
    hypers = [[without_params(group) for group in o.param_groups] for o in optimizers]
    options = [(o.max_grad_norm, o.nonfinite, o.grad_norm) for o in optimizers]
    arrays = [a for own in held for a in own] + copy.deepcopy(loose + leaves(names["grads"]))
    return arrays, (steps, hypers, options, schuss.get_num_threads())


def without_params(group):
    return {name: value for name, value in group.items() if name != "params"}


@pytest.mark.parametrize(("call", "error"), table(), ids=[call[:100] for call, _ in table()])
def test_table(call, error):
    names = scene()
    arrays, rest = everything(names)
    with pytest.raises(Exception) as caught:
        exec(call, names)
    assert f"{caught.type.__name__}: {caught.value}" == error
    now, left = everything(names)
    assert_same(now, arrays, "after the call")
    assert left == rest
    names["todo"].clear()
    assert names["opt"].step(names["grads"]) and names["late"].step(names["g"])
    assert names["groups"].step([[array(3)], array(4)]) and names["late"].grads.shape == (3,)


# Every class of the registry, with the defaults of its hyperparameters.

BAD = {
    bool: [0, 1, "yes", None, np.ones(1, bool)],
    float: [-1.0, math.nan, math.inf, -math.inf, 10**400, True, np.True_, "0.1", None, 1j, [0.1], np.array(0.1)],
    str: ["nonsense", "", None, 3, True],
    tuple: [0.9, "ab", None, (), (0.9,), (0.9,) * 5, (-0.1, 0.9), (0.9, math.nan), (0.9, 1.0), ("0.9", 0.9)],
}
# Hyperparameters for which other values are invalid.
BAD_OF = {
    "eps": [0.9, "ab", None, (), (0.9,), (0.9, 0.9, 0.9), (-0.1, 0.9), (0.9, math.nan), (0.9, None), ("0.9", 0.9)],
    "beta2_decay": [0.1, math.nan, -math.inf, True, "-0.1", None, [-0.1]],
    "decay_rate": [0.1, math.nan, -math.inf, True, "-0.1", None, [-0.1]],
    "lr_power": [0.1, math.nan, -math.inf, True, "-0.1", None, [-0.1]],
    "nus": [0.9, "ab", None, (), (0.9,), (0.9, 0.9, 0.9), (-0.1, 0.9), (0.9, math.nan), (0.9, 1.1), ("0.9", 0.9)],
    "etas": [0.9, "ab", None, (), (0.9,), (0.9, 1.1, 1.2), (0.0, 1.2), (0.9, math.nan), (1.1, 1.2), (0.5, 1.0)],
    "step_sizes": [0.9, "ab", None, (), (0.9,), (0.1, 1.0, 2.0), (0.0, 1.0), (0.9, math.inf), ("0.9", 2)],
    "momentum_decay": [value for value in BAD[float] if value is not None],
    "clip_exp": [value for value in BAD[float] if value is not None],
    "blocks": ["nonsense", "", None, 0, -1, 2.0, True, (2,), np.ones(2)],
    "adjust_lr_fn": [value for value in BAD[str] if value is not None],
    "growth_rate": [-1.0, math.nan, -math.inf, True, "2", None, [2.0]],
}
SIGNATURES = {
    kind: {
        n: p.default
        for n, p in list(inspect.signature(kind).parameters.items())[1:]
        if n not in OPTIMIZER_OPTIONS | STATE_OPTIONS
    }
    for kind in schuss.OPTIMIZERS.values()
}
HYPERS = [(kind, name, default) for kind, signature in SIGNATURES.items() for name, default in signature.items()]
FUNCTIONS = {kind: getattr(schuss.functional, f"{kind.__name__.lower()}_", None) for kind in SIGNATURES}

each_class = pytest.mark.parametrize("kind", SIGNATURES, ids=lambda kind: kind.__name__)
# Optimizers whose step takes only gradients.
each_plain_class = pytest.mark.parametrize(
    "kind", [k for k, f in FUNCTIONS.items() if f], ids=lambda kind: kind.__name__
)


def required(kind):
    """Values for arguments without a default."""
    return {name: 0.1 for name, default in SIGNATURES[kind].items() if default is inspect.Parameter.empty}


def make(kind, params, **given):
    return kind(params, **required(kind) | given)


@pytest.mark.parametrize(("kind", "name", "default"), HYPERS, ids=[f"{k.__name__}: {n}" for k, n, _ in HYPERS])
def test_bad_hyperparameters(kind, name, default):
    """However a bad value is passed, the error names the hyperparameter, and nothing changes."""
    p, q, g = array(3), array(4), array(3)
    opt = make(kind, [p])
    good = opt.param_groups[0].get(name, default)
    before, hypers, state = snapshot(opt), without_params(opt.param_groups[0]), opt.state_dict()
    states = [np.zeros_like(a) for tree in state["state"][0].values() for a in leaves(tree) if a is not None]
    values = BAD.get(type(good), ["nonsense", math.nan, {}])
    if name in BAD_OF and not (name == "eps" and isinstance(good, float)):
        values = BAD_OF[name]
    for bad in values:
        ways = {
            "constructor": lambda: make(kind, q, **{name: bad}),  # noqa: B023
            "group": lambda: make(kind, [{"params": q}, {"params": p, name: bad}]),  # noqa: B023
            "overridden": lambda: make(kind, [{"params": q, name: good}], **{name: bad}),  # noqa: B023
            "added group": lambda: opt.add_param_group({"params": q, name: bad}),  # noqa: B023
            "assignment": lambda: opt.param_groups[0].__setitem__(name, bad),  # noqa: B023
            "state": lambda: opt.load_state_dict(put(state, bad, "param_groups", 0, name)),  # noqa: B023
        }
        if FUNCTIONS[kind]:
            keywords = required(kind) | {name: bad}
            ways["function"] = lambda: FUNCTIONS[kind](p, g, *states, step=1, **keywords)  # noqa: B023
        for way, call in ways.items():
            with pytest.raises((TypeError, ValueError), match=name) as caught:
                call()
            assert caught.type in (TypeError, ValueError), f"{way}: {bad!r}"
            assert_unchanged(opt, before, f"{way}: {bad!r}")
            assert without_params(opt.param_groups[0]) == hypers and len(opt.param_groups) == 1
            assert not any(a.any() for a in states)
    assert_same([q, g], [array(4), array(3)])


@each_class
@pytest.mark.parametrize("name", sorted(OPTIMIZER_OPTIONS))
def test_bad_options(kind, name):
    opt = make(kind, array(3), max_grad_norm=2.0, nonfinite="skip")
    bad = {"max_grad_norm": [0, -1.0, math.nan, True, "1", 1j, [1.0]], "nonfinite": ["x", "", None, 1, True]}[name]
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
            make(kind, array(3), **{name: value})
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
            setattr(opt, name, value)
    assert (opt.max_grad_norm, opt.nonfinite) == (2.0, "skip")


@pytest.mark.parametrize("kind", [k for k in SIGNATURES if k is not schuss.Newton], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", sorted(STATE_OPTIONS))
def test_bad_state_formats(kind, name):
    bad = {
        "state_dtype": ["float8", "float64", "", 1, True, np.float32],
        "state_rounding": ["up", "", None, 1],
        "state_seed": [-1, 2**64, 1.0, True, None, "1"],
        "master_weights": [0, 1, None, "yes"],
    }[name]
    opt = make(kind, array(3))
    state = opt.state_dict()
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
            make(kind, array(3), **{name: value})
        with pytest.raises((TypeError, ValueError), match=name):
            make(kind, [{"params": array(3), name: value}])
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
            opt.load_state_dict(state | {name: value})


SCALES = {"1e400": 10**400, "-1e400": -(10**400), "1e-39": 1e-39, "1e-320": np.float64(1e-320)}


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_bad_gradient_scales(scale):
    """Also scales whose inverse is infinite only in float32: a gradient of 0 times infinity would be NaN."""
    p = array(3)
    with pytest.raises(ValueError, match=r"^grad_scale must be a finite number > 0 whose inverse"):
        schuss.SGD(p, lr=0.1).step(np.zeros(3, F32), grad_scale=scale)
    assert_same([p], [array(3)])
    schuss.SGD(p, lr=0.1).step(np.zeros(3, F32), grad_scale=np.float64(1e-38))
    assert_same([p], [array(3)])


def test_functions_distinguish_true_from_one():
    """They cache checked arguments, and True == 1."""
    for good, bad in [(dict(lr=1.0), dict(lr=True)), (dict(maximize=True), dict(maximize=1))]:
        schuss.functional.sgd_(array(3), array(3), step=1, **good)
        with pytest.raises(TypeError, match=f"^{next(iter(good))} must be"):
            schuss.functional.sgd_(array(3), array(3), step=1, **bad)


@each_class
def test_unknown_keywords(kind):
    calls = [
        lambda: make(kind, array(3), learning_rate=0.1),
        lambda: make(kind, [{"params": array(3), "learning_rate": 0.1}]),
        lambda: make(kind, array(3)).param_groups[0].__setitem__("learning_rate", 0.1),
        lambda: FUNCTIONS[kind](array(3), array(3), step=1, learning_rate=0.1),
    ]
    for call in calls if FUNCTIONS[kind] else calls[:-1]:
        with pytest.raises(TypeError, match="'learning_rate'"):
            call()


@pytest.mark.parametrize("step", [0, -1, 2**63, 2**64, 1.0, True, None])
def test_the_step_of_a_function(step):
    schuss.functional.sgd_(array(3), array(3), step=1, lr=0.1)  # what is known from it takes a short way
    for p in (array(3), array(3)[::-1]):
        error = ValueError if type(step) is int else TypeError
        with pytest.raises(error, match=rf"^step must be a whole number >= 1 and < 2\*\*63, got {step!r}$"):
            schuss.functional.sgd_(p, array(3), step=step, lr=0.1)


def test_attributes_that_cannot_be_set():
    opt = schuss.SGD(array(3))
    for name in ("param_groups", "grads", "skipped_steps", "grad_norm", "clip_factor"):
        with pytest.raises(AttributeError, match=name):
            setattr(opt, name, None)
    with pytest.raises(AttributeError, match="no function 'no_such_'; it has sgd_, "):
        getattr(schuss.functional, "no_such_")  # noqa: B009
    assert "adam_" in dir(schuss.functional) and all(name.endswith("_") for name in dir(schuss.functional))


@each_plain_class
def test_empty_arrays_and_scalars_are_valid(kind):
    """A step with all options takes arrays of length 0, and scalars."""
    for shape in [(0,), (3, 0), ()]:
        p = np.zeros(shape)
        opt = make(kind, {"w": p}, lr=0.5, max_grad_norm=1.0, nonfinite="error", **MOVING.get(kind.__name__, {}))
        grads = {"w": np.ones(shape)}
        assert opt.step(grads, grad_scale=0.5, zero_grads=True) and not grads["w"].any()
        opt.grads["w"][...] = 1.0
        assert opt.step() and opt.step({"w": np.ones(shape, ">f8")})
        assert opt.grad_norm == float(p.size) and opt.step_count == 3
        assert p.shape == shape and (p < 0).all()
    assert opt.step({"w": np.float32(2.0)}), "NumPy's scalars are arrays"


def module_of(name, **methods):
    """An array of another library."""
    return type("Tensor", (), {"__module__": name, "__dlpack__": None, **methods})()


@pytest.mark.parametrize(
    ("param", "advice"),
    [
        (
            module_of("torch.nn.parameter", detach=None),
            "for a model of PyTorch use schuss.torch, or pass a NumPy view of its memory, params[0].detach().numpy()",
        ),
        (
            type("Linear", (), {"named_parameters": None})(),
            "for a model of PyTorch use schuss.torch, with params[0].parameters()",
        ),
        (
            module_of("jaxlib._jax"),
            "make an array once, np.array(params[0]), and update the model from that array",
        ),
        (np.float32(3), "make an array once, np.array(params[0]), and update the model from that array"),
        (module_of("other"), "pass a writable NumPy view of its memory, for example params[0].numpy()"),
    ],
    ids=["torch", "model", "jax", "scalar", "other"],
)
def test_advice_about_arrays_of_others(param, advice):
    with pytest.raises(TypeError) as caught:
        schuss.AdamW([param])
    assert str(caught.value) == f"params[0] is a {type(param).__name__}, not a NumPy array; {advice}"


@pytest.mark.parametrize("kind", [schuss.SGD, schuss.NAG, schuss.Newton])
def test_flags_that_are_arrays(kind):
    w = np.ones(3)
    grads = (lambda: w) if kind is schuss.NAG else w
    more = (np.eye(3),) if kind is schuss.Newton else ()
    with pytest.raises(TypeError, match=r"^zero_grads must be True or False, got array"):
        kind(w).step(grads, *more, zero_grads=np.ones(3))


@pytest.mark.parametrize("function", ["adafactor", "adafactorhf", "came", "sm3"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_states_of_functions_in_another_memory_order(function, order):
    """Also those with a number for each row or column."""
    kind = {"adafactor": "Adafactor", "adafactorhf": "AdafactorHF", "came": "CAME", "sm3": "SM3"}[function]
    p = np.array(np.random.default_rng(0).standard_normal((3, 4, 5)), order=order)
    opt, g = getattr(schuss, kind)(p.copy(order), lr=0.1), np.array(np.ones((3, 4, 5)), order=order)
    opt.step(g)
    states = list(opt.state_dict()["state"][0].values())
    call = getattr(schuss.functional, f"{function}_")
    for k, state in enumerate(states):
        given = [one.copy(order) for one in states]
        given[k] = state.copy("F" if order == "C" else "C")
        if given[k].flags.c_contiguous and given[k].flags.f_contiguous:
            continue
        before = p.copy()
        with pytest.raises(ValueError, match=f"must lie in memory as p does; make it with order='{order}'$"):
            call(p, g, *given, step=2, lr=0.1)
        assert (p == before).all()
    call(p, g, *[one.copy(order) for one in states], step=2, lr=0.1)
