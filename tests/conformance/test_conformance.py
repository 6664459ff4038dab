"""Every optimizer and option against the equations, PyTorch's recorded results, and itself in other dtypes."""

import copy
import inspect
import json
import math

import numpy as np
import pytest
from cases import CASES, REQUIRED, ROWS
from families import named
from helpers import (
    DATA,
    DTYPES,
    F32,
    F64,
    OPTIMIZER_OPTIONS,
    STATE_OPTIONS,
    arrays,
    assert_close,
    assert_same,
    build,
    cast,
    class_of,
    compute_dtype,
    each_case,
    each_case_but,
    each_dtype,
    each_optimizer_newton_too,
    grads_of,
    has_slow_weights,
    is_int8,
    is_newton,
    is_quantized,
    leaves,
    of_class,
    params_of,
    sampled_cases,
    sampled_cases_but,
    sees_nonfinite,
    shapes_of,
    shared,
    state_dtype,
    states,
)
from reference import JOINT, Reference, defaults_of, inner

import schuss

each_class = pytest.mark.parametrize("name", schuss.OPTIMIZERS)


def test_the_table_has_every_optimizer():
    assert set(ROWS) == set(schuss.OPTIMIZERS)
    assert len({c.name for c in CASES}) == len(CASES)
    for name, cls in schuss.OPTIMIZERS.items():
        assert cls is getattr(schuss, name) and cls.__name__ == name


def test_star_import_gives_classes_and_no_modules():
    names = {}
    exec("from schuss.optimizers import *", names)
    assert set(names) - {"__builtins__"} == {"OPTIMIZERS", "Lookahead", *schuss.OPTIMIZERS}
    assert not hasattr(schuss, "adam") and not hasattr(schuss, "sgd")


@each_class
def test_the_table_has_every_keyword(name):
    keywords = set(inspect.signature(schuss.OPTIMIZERS[name]).parameters) - {"params"}
    assert keywords >= OPTIMIZER_OPTIONS | {"lr", "maximize"} and (keywords >= STATE_OPTIONS) == (name != "Newton")
    assert keywords - {"track_grad_norm"} == {k for c in of_class(name) for k in c.kwargs}  # which changes no result


@each_class
def test_defaults(name):
    signature = inspect.signature(schuss.OPTIMIZERS[name]).parameters
    want = defaults_of(name) | {"track_grad_norm": False}
    assert {k: p.default for k, p in signature.items() if p.default is not p.empty} == want
    assert [k for k, p in signature.items() if p.default is p.empty] == ["params", *REQUIRED.get(name, {})]


@each_case_but(is_quantized)
@pytest.mark.parametrize(("dtype", "rtol"), [(F64, 1e-12), (F32, 2e-5)], ids=["float64", "float32"])
def test_equations(case, dtype, rtol):
    shapes = shapes_of(case)
    params = params_of(shapes, dtype)
    opt = build(case, params)
    reference = Reference(case.optimizer, params, **case.kwargs)
    for t in range(1, 26):
        grads = grads_of(t, shapes, dtype)
        scale = 3.0 if t > 20 else 1.0
        assert opt.step(grads, grad_scale=scale) is True
        reference.step(grads, grad_scale=scale)
        assert_close(params, reference.params, rtol, f"step {t}")
    assert opt.step_count == 25
    state = opt.state_dict()["state"]
    assert len(state) == 1 and set(state[0]) == {name for s in reference.state for name in s}
    for name, structure in state[0].items():
        assert [a is None for a in structure] == [name not in s for s in reference.state]
        got, want = [a for a in structure if a is not None], [s[name] for s in reference.state if name in s]
        assert all(a.dtype == state_dtype(case, name, dtype) for a in got)
        assert_close(got, want, 4 * rtol, f"state {name}")
    want = {name: value for name, value in reference.shared.items() if not np.ndim(value)}
    assert set(shared(opt)) == set(want)
    for name, value in shared(opt).items():
        assert value.dtype == F64
        assert_close([value], [want[name]], 4 * rtol, name)


@pytest.mark.parametrize("case", [c for c in CASES if is_quantized(c)], ids=repr)
@pytest.mark.parametrize("dtype", [F64, F32], ids=str)
def test_small_states_follow_the_equations(case, dtype):
    """Quantized states follow the equations with an error relative to the distance that the parameters moved.

    The tolerance is larger where the update is a sign: rounding may flip the sign of a momentum near zero.
    """
    shapes = [(1000,), (31, 7) if case.optimizer != "SOAP" else (21, 21)]  # whose eigenvectors are its own
    start = params_of(shapes, dtype)
    params = [p.copy() for p in start]
    opt, reference = build(case, params), Reference(case.optimizer, start, **case.kwargs)
    for t in range(1, 26):
        grads = grads_of(t, shapes, dtype)
        opt.step(grads)
        reference.step(grads)
    bound = (0.1 if is_int8(case) else 0.02) * (3 if inner(case.optimizer) in named("SIGNS") else 1)
    for p, want, q in zip(params, reference.params, start, strict=True):
        far = np.sqrt(np.mean((want - q) ** 2))
        off = np.sqrt(np.mean((p - want) ** 2))
        assert 0 < off < bound * far


GOLDENS = json.loads((DATA / "torch-2.13.0.json").read_text())
# Tolerances of optimizers for which PyTorch computes scalars in float32, or matrix products in bfloat16.
COARSE = {"NAdam": 1e-8, "ASGD": 1e-6, "Muon": 2e-2}
RECORDED = [g for g in GOLDENS["cases"] if g["optimizer"] in schuss.OPTIMIZERS]


def torch_arrays(element):
    """Arrays of the recorded shapes; element(k, i) is element i of array k."""
    shapes = enumerate(GOLDENS["shapes"])
    return [np.array([element(k, i) for i in range(math.prod(s))]).reshape(s) for k, s in shapes]


def torch_grads(t):
    """The gradients of step t, by the formula of data/make_torch_goldens.py."""
    return torch_arrays(lambda k, i: math.sin(0.7 * t * (i + 1) + k) * 10.0 ** ((i % 5) - 2))


@pytest.mark.parametrize("case", RECORDED, ids=lambda g: f"{g['optimizer']} {g['kwargs']}")
def test_torch(case):
    count = len(case["params"][0])  # PyTorch's Muon takes matrices only
    params = torch_arrays(lambda k, i: math.cos(1.3 * (i + 1) + k) * 2.0)[:count]
    opt = getattr(schuss, case["optimizer"])(params, **case["kwargs"])
    recorded = dict(zip(GOLDENS["steps"], case["params"], strict=True))
    for t in range(1, max(GOLDENS["steps"]) + 1):
        opt.step(torch_grads(t)[:count])
        if t in recorded:
            want = [np.reshape(r, p.shape) for r, p in zip(recorded[t], params, strict=True)]
            assert_close(params, want, COARSE.get(case["optimizer"], 1e-12), f"step {t}")


SMALL = [(33,), (4, 5)]


def edge_grads(t, dtype, finite):
    """Gradients with rounding ties, values outside the range of other dtypes, denormals and signed zeros."""
    grads = grads_of(t, SMALL, F64)
    edge = [0.0, -0.0, 1 + 2**-11, 1 + 2**-8, 1 + 2**-24, 3e-8, 1e-40, -7e4, 6.1e-5]
    edge += [] if finite else [1e300, -1e300, 1e-300, np.inf, -np.inf, np.nan]
    grads[0][: len(edge)] = edge
    return [cast(g, dtype) for g in grads]


@sampled_cases
@each_dtype
def test_gradient_dtypes(case, dtype):
    """A gradient of any dtype gives the bits of its conversion to the compute dtype."""
    finite = sees_nonfinite(case)
    for name, grad_dtype in DTYPES.items():
        params, want = params_of(SMALL, dtype), params_of(SMALL, dtype)
        opt, twin = build(case, params), build(case, want)
        for t in range(1, 4):
            grads = edge_grads(t, grad_dtype, finite)
            opt.step(grads)
            twin.step([cast(g, compute_dtype(dtype)) for g in grads])
        assert_same(arrays(opt), arrays(twin), f"{name} gradients")


@pytest.mark.parametrize("dtype", [F32, DTYPES["float16"], DTYPES["bfloat16"]], ids=str)
def test_gradient_dtypes_when_clipping(dtype):
    """The norm is that of the gradients after their conversion."""
    for seed in range(20):
        params, want = params_of(SMALL, dtype), params_of(SMALL, dtype)
        opt, twin = (schuss.SGD(p, max_grad_norm=1.0) for p in (params, want))
        grads = grads_of(seed, SMALL, F64)
        opt.step(grads)
        twin.step([g.astype(F32) for g in grads])
        assert opt.grad_norm == twin.grad_norm
        assert_same(params, want)


@sampled_cases_but(has_slow_weights)  # they synchronize after the rounding; see test_lookahead.py
@pytest.mark.parametrize("dtype", [DTYPES["float16"], DTYPES["bfloat16"]], ids=str)
def test_low_precision_parameters(case, dtype):
    """The step runs in float32; the result is rounded once, to nearest even."""
    params = params_of(SMALL, dtype)
    params[0][:5] = cast([0.0, -0.0, 6e-8, 65504.0, 1e-40], dtype)
    wide = [p.astype(F32) for p in params]
    opt, twin = build(case, params), build(case, wide)
    for t in range(1, 9):
        grads = grads_of(t, SMALL, dtype)
        opt.step(grads)
        twin.step(grads)
        rounded = [cast(w, dtype) for w in wide]
        assert_same(params, rounded, f"step {t}")
        assert_same(list(states(opt).values()), list(states(twin).values()), f"states, step {t}")
        for w, r in zip(wide, rounded, strict=True):
            w[...] = r


# No functions for these: NAG needs a closure, Ranger has slow weights, Newton solves a system, Muon multiplies
# matrices, and the others have an estimate over all parameters.
NO_FUNCTION = {"NAG", "Ranger", "Newton", "Muon", "SOAP", "Shampoo"} | JOINT


def test_functions():
    functions = {name for name in vars(schuss.functional) if name.endswith("_") and not name.startswith("_")}
    assert functions == {f"{name.lower()}_" for name in set(ROWS) - NO_FUNCTION}
    arrays = [np.ones(1), np.ones((2, 2))]
    used = [
        build(c, copy.deepcopy(arrays)).param_groups[0].rules for c in CASES if c.optimizer in set(ROWS) - NO_FUNCTION
    ]
    without = {"nag", "radam_centralized", "prodigy", "adai", "dadaptadam", "dadaptsgd", "dog", "dog_layerwise"}
    without |= {"muon", "soap", "shampoo", "shampoo_averaged", "shampoo_grafted"}
    assert {rule for rules in used for rule in rules} == set(schuss._schuss.rules()) - without, (
        "some rule is never used"
    )


def test_replacements_for_functions_of_nag_and_ranger():
    """The replacements that the module's docstring names give the same bits."""
    w, b = params_of(SMALL)
    nag, ranger = schuss.NAG(w, lr=0.1), schuss.Ranger(b, lr=0.1, weight_decay=0.1, k=100)
    y, p = w.copy(), b.copy()
    buffer, m, v = np.zeros_like(w), np.zeros_like(b), np.zeros_like(b)
    for t in range(1, 9):
        g, h = grads_of(t, SMALL)
        nag.step(lambda: g)  # noqa: B023
        schuss.functional.sgd_(y, g, buffer, step=t, lr=0.1, momentum=0.9)
        ranger.step(h)
        schuss.centralize_(h)  # with the class's own layout
        options = dict(lr=0.1, betas=(0.95, 0.999), eps=1e-5, weight_decay=0.1, decoupled_weight_decay=True)
        schuss.functional.radam_(p, h, m, v, step=t, **options)
    assert_same([w, b], [y, p])


@each_case_but(has_slow_weights, is_quantized, lambda case: case.optimizer in NO_FUNCTION)
def test_functional(case):
    """schuss.functional computes the same on the caller's arrays."""
    kwargs = {k: v for k, v in case.kwargs.items() if k not in OPTIMIZER_OPTIONS}
    function = getattr(schuss.functional, case.optimizer.lower() + "_")
    accepted = set(inspect.signature(function).parameters)
    options = {k: v for k, v in kwargs.items() if not k.startswith("initial_")}
    assert set(options) <= accepted
    shape = (333,)
    [p], [q] = params_of([shape]), params_of([shape])
    opt = class_of(case)(p, **kwargs, max_grad_norm=None)
    own = [a.copy() for a in leaves(list(opt.state_dict()["state"][0].values()))]
    schedule = options.get("lr")
    if callable(schedule) and "initial_lr" in accepted:
        options["initial_lr"] = schedule(0)
    for t in range(1, 9):
        [g] = grads_of(t, [shape])
        opt.step(g)
        if callable(schedule):
            options["lr"] = schedule(t - 1)
        function(q, g, *own, step=t, **options)
    assert_same([q, *own], arrays(opt))


@each_case
def test_options_that_are_off_leave_infinities_alone(case):
    """A zero gradient leaves an infinite parameter unchanged without decay: 0 * inf would be NaN."""
    reference = Reference(case.optimizer, [[np.inf, -np.inf]], **case.kwargs)
    params = np.array([np.inf, -np.inf])
    opt = build(case, params)
    for _ in range(3):
        opt.step(np.zeros(2))
        with np.errstate(invalid="ignore"):
            reference.step([np.zeros(2)])
        np.testing.assert_array_equal(params, reference.params[0])
    # LAMB decays by default, some multiply by the size of the parameters, FTRL computes them anew, and slow weights
    # compute inf - inf.
    by_size = inner(case.optimizer) in ("Adafactor", "AdafactorHF", "DoG") or case.kwargs.get("scale_by_rms")
    exempt = inner(case.optimizer) in ("LAMB", "FTRL") or by_size or has_slow_weights(case)
    if not (case.kwargs.get("weight_decay") or exempt):
        np.testing.assert_array_equal(params, [np.inf, -np.inf])


@each_case_but(sees_nonfinite, is_newton, is_int8)
@pytest.mark.parametrize("g", [np.inf, -np.inf, np.nan])
def test_nonfinite_gradients_spread_as_in_the_equations(case, g):
    """One bad gradient, then finite ones: NaN and infinities are exactly where the float64 equations have them."""
    start = np.array([1.0, np.inf, -np.inf, np.nan])
    params = start.copy()
    reference = Reference(case.optimizer, [start], **case.kwargs)
    opt = build(case, params)
    for value in (g, 0.5, -0.25):
        grad = np.full(4, value)
        opt.step(grad)
        with np.errstate(invalid="ignore"):
            reference.step([grad])
        want = reference.params[0]
        np.testing.assert_array_equal(np.where(np.isfinite(params), 0, params), np.where(np.isfinite(want), 0, want))


@pytest.mark.parametrize("case", of_class("RMSprop"), ids=repr)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_rmsprop_constant_gradients(case, dtype):
    """Rounding may make the centered variance negative; that must not become NaN."""
    params = np.zeros(2000, dtype)
    grad = (10.0 ** np.random.default_rng(5).uniform(-6, 6, 2000)).astype(dtype)
    opt = build(case, params)
    for _ in range(300):
        opt.step(grad)
        assert np.isfinite(params).all()


@each_optimizer_newton_too
def test_subclasses(case):
    """A subclass of any name behaves like its base; copies have its class."""
    mine = type("Mine", (class_of(case),), {})
    shapes = [(7,), (5, 3)]
    own, plain = params_of(shapes), params_of(shapes)
    opt, twin = mine(own, **case.kwargs), build(case, plain)
    for t in range(1, 4):
        opt.step(grads_of(t, shapes))
        twin.step(grads_of(t, shapes))
    assert_same(arrays(opt), arrays(twin))
    assert type(copy.deepcopy(opt)) is mine
