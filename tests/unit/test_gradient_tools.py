"""Norms, clipping and centralization of gradients: the functions give the same bits as the options of a step."""

import math
import re

import numpy as np
import pytest
from helpers import (
    F32,
    F64,
    arrays,
    assert_close,
    assert_same,
    build,
    cast,
    compute_dtype,
    each_dtype,
    each_optimizer_newton_too,
    grads_of,
    params_of,
)

import schuss

SHAPES = [(33,), (5, 3), (), (2, 3, 4), (2, 3, 2, 2), (0, 3), (3, 0)]
each_order = pytest.mark.parametrize("order", ["C", "F"])
each_compute_dtype = pytest.mark.parametrize("dtype", [F32, F64], ids=str)


def structure(grads):
    a, b, c, *rest = grads
    return {"a": a, "rest": (b, [c, {"last": rest}])}


def ordered(arrays, order):
    return [np.asarray(a, order=order) for a in arrays]


def made(case, dtype, order, **more):
    return build(case, ordered(params_of(SHAPES, dtype), order), **more)


@each_optimizer_newton_too
@each_compute_dtype
@each_order
def test_clipping_in_a_step_equals_clipping_before_it(case, dtype, order):
    opt, twin = made(case, dtype, order, max_grad_norm=1.5), made(case, dtype, order, max_grad_norm=None)
    for t, size in enumerate([1.0, 1e-3, 1e2], start=1):
        grads = ordered((g * dtype.type(size) for g in grads_of(t, SHAPES, dtype)), order)
        opt.step(grads)
        norm = schuss.clip_grad_norm_(grads, 1.5)
        assert norm == opt.grad_norm and (norm > 1.5) == (size != 1e-3)
        twin.step(grads)
        assert_same(arrays(opt), arrays(twin), f"step {t}")


@each_compute_dtype
@each_order
@pytest.mark.parametrize("conv_only", [False, True])
@pytest.mark.parametrize("layout", ["in_out", "out_in"])
@pytest.mark.parametrize("threads", [1, 3])
def test_centralization_in_a_step_equals_centralization_before_it(dtype, order, conv_only, layout, threads):
    """It comes after clipping. Arrays divided between threads and rows longer than a block are included."""
    shapes, options = [*SHAPES, (40, 3000), (500, 100), (10, 10, 10, 3)], dict(lr=0.1, k=3)
    schuss.set_num_threads(threads)
    for bound in (None, 1.5):
        params, want = (ordered(params_of(shapes, dtype), order) for _ in range(2))
        opt = schuss.Ranger(params, gc_conv_only=conv_only, layout=layout, max_grad_norm=bound, **options)
        twin = schuss.Ranger(want, gradient_centralization=False, **options)
        for t in (1, 2, 3, 4):
            grads = ordered(grads_of(t, shapes, dtype), order)
            opt.step(grads)
            if bound:
                schuss.clip_grad_norm_(grads, bound)
            schuss.centralize_(grads, conv_only=conv_only, layout=layout)
            twin.step(grads)
        assert_same(arrays(opt), arrays(twin))


@each_dtype
@each_order
def test_norm(dtype, order):
    """The norm equals NumPy's in float64, for any structure, number of threads, strides, and for read-only arrays."""
    shapes = [*SHAPES, (150_000,), (41, 37)]
    grads = ordered(grads_of(1, shapes, dtype), order)
    want = math.sqrt(math.fsum(float(x) ** 2 for g in grads for x in g.ravel()))
    norms = set()
    for threads in (1, 2, 3):
        schuss.set_num_threads(threads)
        norms |= {schuss.global_norm(grads), schuss.global_norm(structure(grads))}
    assert len(norms) == 1 and norms.pop() == pytest.approx(want, rel=1e-13)
    assert schuss.global_norm(grads[1]) == pytest.approx(np.linalg.norm(grads[1].astype(F64)), rel=1e-14)
    held = grads[0][::-2]
    held.flags.writeable = False
    assert schuss.global_norm([held]) == schuss.global_norm(held.copy())


def test_norms_of_empty_zero_and_overflowing_gradients():
    assert schuss.global_norm([]) == schuss.global_norm({}) == schuss.global_norm(np.zeros((0, 3))) == 0.0
    assert math.copysign(1.0, schuss.clip_grad_norm_([np.zeros(0)], 1.0)) == 1.0
    assert schuss.global_norm(np.float32(-3) * np.ones(())) == 3.0
    assert math.isnan(schuss.global_norm([np.ones(3), np.array([np.nan, np.inf])]))
    assert schuss.global_norm([np.array([1.0, -np.inf])]) == math.inf
    assert schuss.global_norm(np.full(4, 1e30, F32)) == pytest.approx(2e30), "squares are in float64"
    assert schuss.global_norm(np.array([1.7e308, -1.7e308])) == math.inf, "the norm itself overflows"


@pytest.mark.parametrize("size", [1e160, 3e307, 1e-160, 5e-324 * 2.0**20, 5e-324])
@pytest.mark.parametrize("other", [None, F32, F64])
def test_norms_whose_squares_overflow_or_vanish(size, other):
    """Such gradients alone, with others, and with arrays that are divided between threads."""
    exact = [3.0 * size, -4.0 * size] if size > 5e-324 else [size, 0.0]
    norm = pytest.approx(5.0 * size if size > 5e-324 else size, rel=1e-15)
    little = [np.full(70_000, 1e-30 * (size > 1.0), other)] if other else []
    grads = [*little, np.array(exact)]
    assert schuss.global_norm(grads) == norm
    for bound in (1.0, 1e3, math.inf):
        params = [np.zeros_like(g) for g in grads]
        opt = schuss.SGD(params, lr=1.0, max_grad_norm=bound, nonfinite="error")
        opt.step(grads)
        assert opt.grad_norm == norm
        factor = min(1.0, bound / 5.0 / size) if size > 1.0 else min(1.0, bound / (5.0 * size + 1e-6))
        np.testing.assert_allclose(params[-1], -np.array(exact) * factor, rtol=1e-14, atol=0)
        clipped = [g.copy() for g in grads]
        assert schuss.clip_grad_norm_(clipped, bound) == norm
        for p, g in zip(params, clipped, strict=True):
            np.testing.assert_array_equal(-p, g)


def test_clipping_when_the_square_of_the_norm_overflows():
    w = np.zeros(2)
    opt = schuss.SGD(w, lr=1.0, max_grad_norm=1.0)
    assert opt.step(np.array([3e160, 4e160])) and opt.grad_norm == pytest.approx(5e160)
    assert w.tolist() == [-0.6, -0.8]
    largest = np.array([1.7e308, 1.7e308])  # the norm itself overflows
    assert schuss.clip_grad_norm_(largest, 1.0) == math.inf and largest == pytest.approx([0.5**0.5] * 2)


@pytest.mark.parametrize("kind", [schuss.LARS, schuss.LAMB, schuss.NovoGrad, schuss.Adam])
def test_clipped_gradients_are_those_that_an_optimizer_squares(kind):
    """In float64 it could not square these."""
    results = []
    for size in (1.0, 1e160):
        w = np.ones(2)
        opt = kind(w, lr=0.1, weight_decay=0.5, max_grad_norm=1.0)
        for _ in range(3):
            assert opt.step(np.array([3.0, 4.0]) * size)
        results.append(w)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)
    assert (results[1] < 1.0).all()


@each_dtype
@each_order
@pytest.mark.parametrize("bound", [1e-3, 2.5, 1e6, math.inf, np.float32(np.inf)])
def test_clip_grad_norm(dtype, order, bound):
    """PyTorch's formula. It returns the norm before clipping, and leaves gradients alone whose norm is small."""
    grads = ordered(grads_of(1, SHAPES, dtype), order)
    before = [g.copy("K") for g in grads]
    norm = schuss.clip_grad_norm_(structure(grads), bound)
    assert norm == schuss.global_norm(before) > 2.5
    factor = compute_dtype(dtype).type(min(1.0, bound / (norm + 1e-6)))
    want = [cast(np.asarray(g.astype(compute_dtype(dtype)) * factor), dtype) for g in before]
    assert_same(grads, before if bound > norm else want)


@each_dtype
def test_clipping_of_nonfinite_gradients(dtype):
    """As in PyTorch, a NaN makes all gradients NaN; an infinity makes the others zero."""
    grads = [cast(np.array([1.0, np.nan]), dtype), cast(np.ones(2), dtype)]
    assert math.isnan(schuss.clip_grad_norm_(grads, 1.0)) and all(np.isnan(g).all() for g in grads)
    grads = [cast(np.array([1.0, np.inf]), dtype), cast(np.ones(2), dtype)]
    assert schuss.clip_grad_norm_(grads, 1.0) == math.inf
    assert_same(
        [np.isnan(grads[0]), grads[0][:1], grads[1]],
        [np.array([False, True]), *np.split(cast(np.zeros(3), dtype), [1])],
    )


@each_dtype
@pytest.mark.parametrize("bound", [0.0, 0.3, 2.5, 1e300])
def test_clip_grad_value(dtype, bound):
    """np.clip with the bound rounded to the compute dtype; NaN stays NaN."""
    grads = grads_of(1, [*SHAPES, (140_000,)], dtype)
    grads[0][:6] = cast(np.array([np.nan, np.inf, -np.inf, 0.0, 6e-8, -2.5]), dtype)
    wide = compute_dtype(dtype)
    limit = cast(np.array(bound), wide)
    want = [cast(np.clip(g.astype(wide), -limit, limit), dtype) for g in grads]
    assert schuss.clip_grad_value_(grads, bound) is None
    for g, w in zip(grads, want, strict=True):
        np.testing.assert_array_equal(g.astype(wide), w.astype(wide))


@each_dtype
@each_order
@pytest.mark.parametrize("conv_only", [False, True])
@pytest.mark.parametrize("layout", ["in_out", "out_in", None])
def test_centralize(dtype, order, conv_only, layout):
    grads = ordered(grads_of(1, SHAPES, dtype), order)
    want = []
    for g in grads:
        wide = g.astype(F64)
        if g.size and g.ndim > (3 if conv_only else 1):
            axes = range(1, g.ndim) if layout == "out_in" else range(g.ndim - 1)
            wide = wide - wide.mean(axis=tuple(axes), keepdims=True)
        want.append(wide)
    before = [g.copy() for g in grads]
    given = {} if layout is None else dict(layout=layout)
    assert schuss.centralize_(structure(grads), conv_only=conv_only, **given) is None
    assert_close(grads, want, {"float64": 1e-15, "float32": 1e-6, "float16": 1e-3}.get(dtype.name, 1e-2))
    for g, b in zip(grads, before, strict=True):
        if g.ndim <= (3 if conv_only else 1):
            assert_same([g], [b], "others are left alone")


def overlapping():
    memory = np.ones(5)
    return [memory[:3], memory[2:]]


def read_only():
    g = np.ones(3)
    g.flags.writeable = False
    return g


# Wrong gradients for functions that write them, and wrong bounds. The valid gradients before them stay unchanged.
STRUCTURES = [
    (
        lambda: [1.5], TypeError,
        "grads[1][0] is a float, not a NumPy array; put the numbers into np.array(..., dtype=np.float32 or "
        "np.float64) and step with that array",
    ),
    (
        lambda: {"w": np.ones(3, int)}, TypeError,
        "grads[1]['w'] has dtype int64; it must be float32, float64, float16 or bfloat16 (ml_dtypes): convert it "
        "with .astype(np.float32 or np.float64) and step with that array",
    ),
    (
        read_only, ValueError,
        "grads[1] is read-only; pass a writable array, or copy it once and step with that array",
    ),
    (
        lambda: np.ones((4, 4))[:, ::2], ValueError,
        "grads[1] is not contiguous (shape (4, 2), strides (32, 16)); make it so once with np.ascontiguousarray and "
        "step with that array; or list the array that it is a slice of, once",
    ),
    (
        overlapping, ValueError,
        "grads[1][1] overlaps the memory of grads[1][0]; pass arrays that share no memory",
    ),
    (lambda: np.ma.ones(3), TypeError, "grads[1] is a masked array; pass its .data, or .filled(0)"),
]  # fmt: skip
TOOLS = {
    "clip_grad_norm_": lambda grads: schuss.clip_grad_norm_(grads, 0.1),
    "clip_grad_value_": lambda grads: schuss.clip_grad_value_(grads, 0.1),
    "centralize_": schuss.centralize_,
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(("bad", "error", "message"), STRUCTURES)
def test_gradients_that_cannot_be_written(tool, bad, error, message):
    good, wrong = np.ones((2, 3)), bad()
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        TOOLS[tool]([good, wrong])
    assert_same([good], [np.ones((2, 3))])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g: schuss.clip_grad_norm_(g, 0.0), ValueError, "max_norm must be a number > 0, got 0.0"),
        (lambda g: schuss.clip_grad_norm_(g, -math.inf), ValueError, "max_norm must be a number > 0, got -inf"),
        (lambda g: schuss.clip_grad_norm_(g, math.nan), ValueError, "max_norm must be a number > 0, got nan"),
        (lambda g: schuss.clip_grad_norm_(g, None), TypeError, "max_norm must be a number > 0, got None"),
        (lambda g: schuss.clip_grad_norm_(g, "1"), TypeError, "max_norm must be a number > 0, got '1'"),
        (lambda g: schuss.clip_grad_norm_(g, [1, 2]), TypeError, "max_norm must be a number > 0, got [1, 2]"),
        (
            lambda g: schuss.clip_grad_norm_(g, np.ones(2)), TypeError,
            "max_norm must be a number > 0, got array([1., 1.])",
        ),
        (lambda g: schuss.clip_grad_value_(g, -1.0), ValueError, "clip_value must be a number >= 0, got -1.0"),
        (lambda g: schuss.clip_grad_value_(g, None), TypeError, "clip_value must be a number >= 0, got None"),
        (lambda g: schuss.centralize_(g, conv_only=1), TypeError, "conv_only must be True or False, got 1"),
        (
            lambda g: schuss.centralize_(g, layout="out"), ValueError,
            "layout must be 'in_out' or 'out_in', got 'out'",
        ),
        (lambda g: schuss.global_norm([g, "w"]), TypeError, "grads[1] must be an array, got str"),
        (
            lambda g: schuss.global_norm({"w": np.ones(3, int)}), TypeError,
            "grads['w'] has dtype int64; a gradient must be float32, float64, float16 or bfloat16 (ml_dtypes): convert "
            "it with .astype(np.float32)",
        ),
    ],
)  # fmt: skip
def test_wrong_calls(call, error, message):
    g = np.array([[3.0, 4.0]])
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call(g)
    assert_same([g], [np.array([[3.0, 4.0]])])


@pytest.mark.parametrize("make", [schuss.split_groups, lambda p: schuss.transforms.layer_lrs(p, {"[1]": 0.5}, lr=1.0)])
def test_groups_of_the_values_of_a_dict(make):
    """As constructors, these functions make lists of what can be read once."""
    params = {"w": np.ones((2, 2)), "b": np.ones(2)}
    for given in (params.values(), iter(params.values())):
        assert [list(group["params"]) for group in make(given)] == [["[0]"], ["[1]"]]


def test_split_groups():
    w, b = np.ones((2, 2)), np.ones(2)
    assert schuss.split_groups([w]) == [{"params": {"[0]": w}}]
    assert schuss.split_groups([b], adapt=True) == [{"params": {"[0]": b}, "adapt": True, "weight_decay": 0.0}]
    first, second = schuss.split_groups({"a": [b, w], "b": b}, lr=0.5)
    assert list(first) == ["params"] and first["params"]["['a'][1]"] is w
    assert second["params"] == {"['a'][0]": b, "['b']": b}
    assert (second["lr"], second["adapt"], second["weight_decay"]) == (0.5, False, 0.0)
    opt = schuss.AdamW(schuss.split_groups([b, w], lr=0.5))
    assert [(own["lr"], own["weight_decay"], "adapt" in own) for own in opt.param_groups] == [
        (0.001, 0.01, False), (0.5, 0.0, False)
    ]  # fmt: skip
    opt.add_param_group({"params": w.copy(), "adapt": False})
    with pytest.raises(TypeError, match="has unknown 'adapt'"):
        schuss.AdamW(schuss.split_groups([b, w], adapt=True))


@pytest.mark.parametrize("kind", [schuss.Fromage, schuss.FTRL, schuss.Newton, schuss.Rprop, schuss.SM3])
def test_split_groups_of_a_class_without_weight_decay(kind):
    opt = kind(schuss.split_groups([np.ones(2), np.ones((2, 2))]), lr=0.1)
    assert [set(group) for group in opt.param_groups] == [set(opt.param_groups[0])] * 2
    with pytest.raises(TypeError, match="has unknown 'weight_decay'"):
        kind(schuss.split_groups([np.ones(2)], weight_decay=0.1), lr=0.1)


def test_a_number_is_the_gradient_of_a_scalar():
    assert schuss.global_norm({"a": 3.0, "b": 4, "c": np.zeros(2)}) == 5.0


@pytest.mark.parametrize(
    ("name", "options"),
    [("LARS", dict(weight_decay=0.01, trust_coefficient=0.1)), ("LAMB", dict(max_grad_norm=None))],
    ids=["LARS", "LAMB"],
)
def test_groups_that_are_not_adapted(name, options):
    """split_groups: matrices are adapted as usual; the others get no trust ratio and no decay."""
    params = dict(zip("wxyz", params_of([(5, 3), (7,), (), (2, 2, 2)]), strict=True))
    alone = {k: p.copy() for k, p in params.items()}
    kind, options = getattr(schuss, name), options | {"lr": 0.1}
    opt = kind(schuss.split_groups(params, lr=0.2), **options)
    matrices = kind([alone["w"], alone["z"]], **options)
    others = kind([alone["x"], alone["y"]], **options | dict(lr=0.2, adapt=False, weight_decay=0.0))
    plain = [params["x"].copy(), params["y"].copy()]
    # Without adaptation, LARS is SGD with the learning rate in its velocity, and LAMB is Adam.
    sgd = schuss.SGD(plain, lr=0.2, momentum=0.9, momentum_form="velocity")
    twin = sgd if name == "LARS" else schuss.Adam(plain, lr=0.2, eps=1e-6)
    for t in range(1, 6):
        w, x, y, z = grads_of(t, [(5, 3), (7,), (), (2, 2, 2)])
        opt.step([{"['w']": w, "['z']": z}, {"['x']": x, "['y']": y}])
        matrices.step([w, z])
        others.step([x, y])
        twin.step([x, y])
    assert_same([params[k] for k in "wzxy"], [alone[k] for k in "wzxy"])
    assert_close([params["x"], params["y"]], plain, 1e-13)


@pytest.mark.parametrize("bound", [math.inf, np.float32(np.inf), np.float64(np.inf)])
def test_an_infinite_bound_only_measures_the_norm(bound):
    opt = schuss.SGD(np.ones(2), lr=0.5, max_grad_norm=bound)
    assert type(opt.max_grad_norm) is float and opt.max_grad_norm == math.inf
    assert opt.step(np.array([3.0, 4.0])) and opt.grad_norm == 5.0


@pytest.mark.parametrize("tool", TOOLS)
@each_dtype
def test_subclasses_of_arrays(tool, dtype):
    """Subclasses such as memory maps give the bits of plain arrays."""
    plain = grads_of(1, SHAPES, dtype)
    others = [g.copy().view(np.memmap) for g in plain]
    TOOLS[tool](plain)
    TOOLS[tool](others)
    assert_same(others, plain)


def test_own_gradients_in_a_list_are_not_extended():
    opt = schuss.SGD([np.ones(2), np.ones(2)], lr=0.1)
    with pytest.raises(
        AttributeError, match=r"^grads cannot be replaced; write into its arrays: opt.grads\[0\]\[...\] = g$"
    ):
        opt.grads += (np.ones(2), np.ones(2))
    assert len(opt.grads) == 2 and opt.step()
    single = schuss.SGD(np.ones(2), lr=0.1)
    single.grads += 1.0
    assert single.grads.tolist() == [1.0, 1.0]
