"""Shared by the tests: dtypes, seeded arrays, making optimizers, properties of cases, bit-for-bit comparison."""

import copy
import functools
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from cases import AROUND, CASES
from families import declared
from families.newton import hessian
from reference import JOINT, defaults_of, inner

import schuss

# The repository, and the recorded results.
ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
DTYPES = {str(np.dtype(d)): np.dtype(d) for d in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)}

# Odd sizes around the vector widths, empty arrays, a scalar, and several dimensions.
SHAPES = [(0,), (1,), (7,), (16,), (33,), (1000,), (), (5, 3), (2, 3, 4), (3, 0)]

# Options of the constructor that parameter groups and functions do not take: all optimizers', those of optimizers with
# state, those of optimizers with slow weights.
OPTIMIZER_OPTIONS = {"max_grad_norm", "nonfinite"}
STATE_OPTIONS = {"state_dtype", "state_rounding", "state_seed", "master_weights"}
LOOKAHEAD_OPTIONS = {"k", "alpha", "pullback"}


class NAG(schuss.NAG):
    """NAG whose step takes gradients, which are then the same at the look-ahead point."""

    def step(self, grads=None, **options):
        return super().step(lambda: self._own_grads() if grads is None else grads, **options)


class Newton(schuss.Newton):
    """Newton whose step needs no Hessian: there is one for each number of parameters, scaled like the gradients."""

    def step(self, grads=None, *, grad_scale=1.0, **options):
        sign = -1 if self.param_groups[0]["maximize"] else 1
        h = sign * grad_scale * hessian(sum(p.size for p in parameters(self)))
        return super().step(grads, h, grad_scale=grad_scale, **options)


CLASSES = schuss.OPTIMIZERS | {"NAG": NAG, "Newton": Newton}


def lookahead_around(name):
    """Lookahead around an optimizer, with the constructor of one; a class of this module, so that it can be pickled."""

    def init(self, params, *, k=5, alpha=0.5, pullback="none", **kwargs):
        schuss.Lookahead.__init__(self, CLASSES[name](params, **kwargs), k, alpha, pullback)

    made = type(f"Lookahead({name})", (schuss.Lookahead,), {"__init__": init, "__module__": __name__})
    globals()[made.__name__] = made
    return made


CLASSES |= {f"Lookahead({name})": lookahead_around(name) for name in AROUND}


# Properties of cases.


def has_slow_weights(case):
    return case.optimizer == "Ranger" or inner(case.optimizer) != case.optimizer


def clips(case):
    return (defaults_of(case.optimizer) | case.kwargs)["max_grad_norm"] is not None


def spans_arrays(case):
    """An array's result depends on the other arrays: clipping, a mean or an estimate over all of them."""
    joint = inner(case.optimizer) in JOINT and not is_newton(case)
    return clips(case) or (joint and not case.kwargs.get("layerwise"))


def sees_nonfinite(case):
    return clips(case) or "nonfinite" in case.kwargs


def is_quantized(case):
    """The state has fewer bits, so results follow the equations only approximately."""
    return "state_dtype" in case.kwargs


def is_int8(case):
    """The state is int8, with one scale per 256 elements."""
    return case.kwargs.get("state_dtype") == "int8"


def depends_on_position(case):
    """An element's result depends on its position: on its random bits, and on the scale of its block."""
    return is_quantized(case) and case.kwargs.get("state_rounding") != "nearest"


def is_newton(case):
    """One linear system over all parameters, which would be too large for many of them."""
    return case.optimizer == "Newton"


def uses_blas(case):
    """NumPy's BLAS or LAPACK computes a part of the step, so that bits depend on it."""
    return case.optimizer in {"Newton", "Muon", "SOAP", "Shampoo"}


def sums(case):
    """An element's update depends on its row, or on a sum over its array, its row or everything, in memory order."""
    centralizes = case.optimizer == "Ranger" and case.kwargs.get("gradient_centralization", True)
    scales = not {"cautious", "scale_by_rms", "row_wise", "catch_up"}.isdisjoint(case.kwargs)
    summing = {"LARS", "LAMB", "NovoGrad", "Adafactor", "AdafactorHF", "CAME", "SM3", "StableAdamW", "AdamMini"}
    summing |= {"MARS", "AdamP", "SGDP", "Fromage", "Muon", "SOAP", "Shampoo"} | JOINT - {"Newton"}
    return inner(case.optimizer) in summing or centralizes or scales


def each_case_but(*kinds):
    return pytest.mark.parametrize("case", [c for c in CASES if not any(kind(c) for kind in kinds)], ids=repr)


each_case = each_case_but()
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))


def of_class(optimizer):
    return [c for c in CASES if c.optimizer == optimizer]


# One case per optimizer, with momentum where it has that, for tests in which the rule does not matter.
TYPICAL = {
    name: next((c for c in of_class(name) if "momentum" in c.kwargs), of_class(name)[0])
    for name in dict.fromkeys(c.optimizer for c in CASES)
}


def is_sampled(case):
    """One of a few cases of each optimizer: a typical one, those with most options, those with small states."""
    return case in TYPICAL.values() or case.name.endswith(": all") or is_quantized(case)


def sampled_cases_but(*kinds):
    """For tests of what hardly depends on options: a few cases of each optimizer, and all in the slow set."""
    cases = [c for c in CASES if not any(kind(c) for kind in kinds)]
    marked = [c if is_sampled(c) else pytest.param(c, marks=pytest.mark.slow) for c in cases]
    return pytest.mark.parametrize("case", marked, ids=repr)


sampled_cases = sampled_cases_but()


def each_optimizer_but(*kinds):
    cases = [c for c in TYPICAL.values() if not any(kind(c) for kind in kinds)]
    return pytest.mark.parametrize("case", cases, ids=lambda c: c.optimizer)


each_optimizer = each_optimizer_but(is_newton)
each_optimizer_newton_too = each_optimizer_but()


def compute_dtype(dtype):
    return F64 if dtype == F64 else F32


def cast(a, dtype):
    """astype, silent about overflow to infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(a).astype(dtype)


@functools.lru_cache(maxsize=256)
def random_values(seed, shapes, spread):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s) * 10.0 ** (spread * rng.uniform(-1, 0.5, s)) for s in shapes]


def random_arrays(seed, shapes, dtype=F64, spread=1.0):
    """Values around 1, over `spread` decades or more. Each call allocates new arrays."""
    return [cast(a, dtype) for a in random_values(seed, tuple(shapes), spread)]


def params_of(shapes, dtype=F64, seed=1):
    return random_arrays(seed, shapes, dtype, spread=0.5)


def grads_of(t, shapes, dtype=F64, seed=7):
    """The gradients of step t."""
    return random_arrays((seed, t), shapes, dtype)


def shapes_of(case):
    """SHAPES, without the long one for Newton, whose Hessian would be large; for others those with eigenvectors.

    The null space of SOAP's gradients has none of its own: any rotation there would do. Rounding errors of the null
    space of Shampoo's are large in its roots, and those of a long vector would take long.
    """
    if case.optimizer in ("SOAP", "Shampoo"):
        return [(0,), (1,), (2,), (), (5, 5), (6, 2, 3) if case.kwargs.get("layout") != "in_out" else (3, 2, 6), (3, 0)]
    return [s for s in SHAPES if s != (1000,) or not is_newton(case)]


# States with other than one value per element: one per array, or one per row or column of the last two axes, or else a
# function from the array's shape and the case's options to theirs.
SCOPES = declared("SCOPES")


def scope(case, name):
    return SCOPES.get(inner(case.optimizer), {}).get(name, "element")


def state_shape(case, name, shape):
    """The shape of a state for a parameter of this shape; None if it has no state of this name."""
    factored = "row" in SCOPES.get(inner(case.optimizer), {}).values()
    if factored and (scope(case, name) != "element" or name == "v") and (name == "v") == (len(shape) > 1):
        return None
    if callable(scope(case, name)):
        return scope(case, name)(shape, **case.kwargs)
    if scope(case, name) == "row":
        return (*shape[:-1], 1)
    if scope(case, name) == "col":
        return (*shape[:-2], 1, shape[-1])
    return () if scope(case, name) == "array" else shape


def state_dtype(case, name, dtype):
    """The dtype of a full-precision state for a parameter of this dtype; float64 for one value per array."""
    return F64 if scope(case, name) == "array" else compute_dtype(dtype)


def class_of(case):
    return CLASSES[case.optimizer]


def build(case, params, **more):
    return class_of(case)(params, **(case.kwargs | more))


def twins(case, shapes, dtype=F64, **more):
    """Two optimizers over equal parameters."""
    return build(case, params_of(shapes, dtype), **more), build(case, params_of(shapes, dtype), **more)


def optimizer_options(case):
    """The case's options that only the constructor takes."""
    names = OPTIMIZER_OPTIONS | STATE_OPTIONS | (LOOKAHEAD_OPTIONS if has_slow_weights(case) else set())
    return {k: v for k, v in case.kwargs.items() if k in names}


def group_options(case):
    """Every hyperparameter of a group of this case, defaults included."""
    names = OPTIMIZER_OPTIONS | STATE_OPTIONS | (LOOKAHEAD_OPTIONS if has_slow_weights(case) else set())
    return {k: v for k, v in (defaults_of(case.optimizer) | case.kwargs).items() if k not in names}


def leaves(structure):
    """The arrays of a nested structure, depth first; None stands for a state that a parameter does not have."""
    if structure is None or isinstance(structure, np.ndarray):
        return [structure]
    items = structure.values() if isinstance(structure, dict) else structure
    return [a for item in items for a in leaves(item)]


def states(opt):
    """The state arrays by (group, name, index)."""
    return {
        (i, name, k): a
        for i, group in enumerate(opt.state_dict()["state"])
        for name, structure in group.items()
        for k, a in enumerate(leaves(structure))
        if a is not None
    }


def shared(opt):
    """The values that an optimizer has once for all arrays, by name."""
    return opt.state_dict().get("shared", {})


def parameters(opt):
    return [p for group in opt.param_groups for p in group["params"]]


def arrays(opt):
    """Parameters, states and shared values, in an order that does not depend on the structure."""
    return parameters(opt) + list(states(opt).values()) + list(shared(opt).values())


def snapshot(opt):
    """A copy of everything that a step may change."""
    d = opt.state_dict()
    steps = (d["step"], d["skipped_steps"], [g["step"] for g in d["param_groups"]])
    return copy.deepcopy(arrays(opt)), steps


def assert_same(got, want, what=""):
    """Asserts equal dtypes, shapes and bits; -0.0 differs from 0.0, and NaNs by sign and payload."""
    assert len(got) == len(want), what
    pairs = zip(map(np.asarray, got), map(np.asarray, want), strict=True)
    for k, (a, b) in enumerate(pairs):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{what}: array {k}"
        if a.tobytes() != b.tobytes():
            x, y = (np.frombuffer(c.tobytes(), f"u{c.itemsize}") for c in (a, b))
            bad = np.flatnonzero(x != y)
            i = bad[0]
            raise AssertionError(
                f"{what}: array {k} ({a.dtype}, {a.shape}): {len(bad)} of {a.size} elements differ, "
                f"first [{i}]: {a.ravel()[i]!r} ({x[i]:#x}) is not {b.ravel()[i]!r} ({y[i]:#x})"
            )


def assert_unchanged(opt, before, what=""):
    now = snapshot(opt)
    assert now[1] == before[1], what
    assert_same(now[0], before[0], what)


def assert_close(got, want, rtol, what=""):
    """Asserts that values differ by at most rtol times the largest of them, or times 1."""
    assert len(got) == len(want), what
    for k in range(len(got)):
        a, b = np.asarray(got[k], F64), np.asarray(want[k], F64)
        assert a.shape == b.shape
        scale = max(1.0, np.max(np.abs(b), initial=0))
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale, err_msg=f"{what}: array {k}")


def refused(error, message):
    """Expects exactly this error."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


class Interrupted(BaseException):
    """An interruption that is not an Exception, like KeyboardInterrupt."""
