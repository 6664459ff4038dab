"""Sizes, memory layouts, containers and groups never change the bits of a result."""

import functools
import pickle

import numpy as np
import pytest
from cases import REQUIRED, Case
from helpers import (
    F32,
    F64,
    TYPICAL,
    arrays,
    assert_same,
    build,
    class_of,
    depends_on_position,
    each_case_but,
    each_dtype,
    each_optimizer_but,
    each_optimizer_newton_too,
    grads_of,
    group_options,
    is_newton,
    leaves,
    of_class,
    optimizer_options,
    parameters,
    params_of,
    sampled_cases,
    sampled_cases_but,
    scope,
    shapes_of,
    spans_arrays,
    state_shape,
    states,
    sums,
)

import schuss

STEPS = range(1, 5)
MATRICES = [(6, 8), (3, 4, 5), (2, 3), (1, 7)]


def run(case, params, grads_at, **more):
    opt = build(case, params, **more)
    for t in STEPS:
        opt.step(grads_at(t))
    return opt


@each_case_but(spans_arrays, sums, depends_on_position)
@each_dtype
def test_sizes(case, dtype):
    """An array of any size gets the results of the same elements in one long array, so body and tail loops agree."""
    shapes = shapes_of(case)
    parts = params_of(shapes, dtype)
    opt = run(case, parts, lambda t: grads_of(t, shapes, dtype))
    whole = np.concatenate([p.ravel() for p in params_of(shapes, dtype)])
    twin = run(case, whole, lambda t: np.concatenate([g.ravel() for g in grads_of(t, shapes, dtype)]))
    assert_same([np.concatenate([p.ravel() for p in parts])], [whole])
    got, want = opt.state_dict()["state"][0], twin.state_dict()["state"][0]
    assert list(got) == list(want)
    for name in got:
        if scope(case, name) == "array":  # no element changes it, otherwise `sums` would be true
            filled = [a.item() for a, p in zip(got[name], parts, strict=True) if p.size]
            assert set(filled) == {want[name].item()}, name
            continue
        assert [a.shape for a in got[name]] == shapes
        assert_same([np.concatenate([a.ravel() for a in got[name]])], [want[name]], name)


@sampled_cases
def test_one_array_without_a_list(case):
    """An optimizer over one array that is passed directly, not in a list."""
    for shape in shapes_of(case):
        [p], [q] = params_of([shape]), params_of([shape])
        opt = run(case, p, lambda t: grads_of(t, [shape])[0])  # noqa: B023
        twin = run(case, [q], lambda t: grads_of(t, [shape]))  # noqa: B023
        assert opt.step_count == len(STEPS)
        assert_same(arrays(opt), arrays(twin), f"shape {shape}")


def unaligned(g):
    memory = np.empty(g.nbytes + 1, np.uint8)
    out = np.ndarray(g.shape, g.dtype, memory.data, offset=1)
    out[...] = g
    return out


def record_field(g):
    records = np.zeros(g.shape, [("tag", np.uint8), ("value", g.dtype)])
    records["value"] = g
    return records["value"]


def read_only(g):
    g = g.copy()
    g.flags.writeable = False
    return g


def unpickled(g):
    """An array whose dtype equals NumPy's own but is another object."""
    return pickle.loads(pickle.dumps(g))


LAYOUTS = {
    "fortran": np.asfortranarray,
    "reversed": lambda g: np.flip(np.flip(g).copy()),
    "every other": lambda g: np.repeat(g, 2, axis=-1)[..., ::2],
    "every third from behind": lambda g: np.repeat(np.flip(g, 0), 3, axis=0)[::-3],
    "transposed": lambda g: np.moveaxis(np.moveaxis(g, -1, 0).copy(), 0, -1),
    "unaligned": unaligned,
    "record field": record_field,
    "read-only": read_only,
    "unpickled": unpickled,
}


@sampled_cases
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_layouts(case, layout):
    """Any strides give the results of a contiguous copy."""
    for order in "CF":
        params, want = ([np.asarray(p, order=order) for p in params_of(MATRICES, F32)] for _ in range(2))
        opt = run(case, params, lambda t: [LAYOUTS[layout](g) for g in grads_of(t, MATRICES, F32)])
        twin = run(case, want, lambda t: grads_of(t, MATRICES, F32))
        assert_same(arrays(opt), arrays(twin), f"{order}-order parameters")


@each_optimizer_newton_too
@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_layouts_and_dtypes(case, dtype, layout):
    params, want = params_of(MATRICES, F32), params_of(MATRICES, F32)
    opt = run(case, params, lambda t: [LAYOUTS[layout](g) for g in grads_of(t, MATRICES, dtype)])
    twin = run(case, want, lambda t: grads_of(t, MATRICES, dtype))
    assert_same(arrays(opt), arrays(twin))


@each_optimizer_newton_too
@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", np.longdouble])
def test_other_float_gradients(case, dtype):
    """Floats of dtypes that the kernels do not read are converted."""
    params, want = params_of(MATRICES), params_of(MATRICES)
    opt = run(case, params, lambda t: [g.astype(dtype) for g in grads_of(t, MATRICES)])
    twin = run(case, want, lambda t: [g.astype(dtype).astype(F64) for g in grads_of(t, MATRICES)])
    assert_same(arrays(opt), arrays(twin))


@each_optimizer_newton_too
def test_broadcast_gradients(case):
    """Broadcast arrays have strides of zero."""
    params, want = params_of([(6, 8)]), params_of([(6, 8)])
    row = grads_of(1, [(8,)])[0]
    opt = run(case, params, lambda t: [np.broadcast_to(row, (6, 8))])
    twin = run(case, want, lambda t: [np.broadcast_to(row, (6, 8)).copy()])
    assert_same(arrays(opt), arrays(twin))


@each_case_but(spans_arrays, sums, depends_on_position)
def test_fortran_parameters(case):
    """Fortran order gives the same bits; only sums over an array depend on the memory order."""
    params = [np.asfortranarray(p) for p in params_of(MATRICES)]
    want = params_of(MATRICES)
    opt = run(case, params, lambda t: grads_of(t, MATRICES))
    twin = run(case, want, lambda t: grads_of(t, MATRICES))
    assert_same(arrays(opt), arrays(twin))


@each_dtype
def test_unpickled_parameters(dtype):
    """Arrays that were pickled, as those from another process are."""
    case = TYPICAL["Adam"]
    params, want = [unpickled(p) for p in params_of(MATRICES, dtype)], params_of(MATRICES, dtype)
    opt = run(case, params, lambda t: [unpickled(g) for g in grads_of(t, MATRICES, dtype)])
    twin = run(case, want, lambda t: grads_of(t, MATRICES, dtype))
    assert_same(arrays(opt), arrays(twin))
    assert all(p is q for p, q in zip(parameters(opt), params, strict=True))


def nested(a, b, c, d):
    return {"first": a, "rest": [b, (c, {"last": d})]}


CONTAINERS = {
    "list": lambda *a: list(a),
    "tuple": lambda *a: a,
    "dict": lambda *a: dict(zip("wxyz", a, strict=True)),
    "nested": nested,
    "lists in lists": lambda a, b, c, d: [[a], [[b, c]], d],
}
FOUR = [(5, 3), (7,), (), (33,)]


@sampled_cases_but(depends_on_position)
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers(case, container):
    """Any nesting of containers gives the results of a flat list."""
    make = CONTAINERS[container]
    params, want = params_of(FOUR), params_of(FOUR)
    opt = run(case, make(*params), lambda t: make(*grads_of(t, FOUR)))
    twin = run(case, want, lambda t: grads_of(t, FOUR))
    assert_same(arrays(opt), arrays(twin))
    assert all(p is q for p, q in zip(parameters(opt), params, strict=True))
    for name, structure in opt.state_dict()["state"][0].items():
        assert type(structure) is type(make(*FOUR))
        shapes = [None if a is None else a.shape for a in leaves(structure)]
        assert shapes == [state_shape(case, name, s) for s in FOUR]


@each_optimizer_newton_too
def test_dict_order(case):
    """Gradients are found by key, not by position."""
    params, want = params_of(FOUR), params_of(FOUR)

    def shuffled(t):
        a, b, c, d = grads_of(t, FOUR)
        return {"rest": [b, (c, {"last": d})], "first": a}

    opt = run(case, nested(*params), shuffled)
    twin = run(case, nested(*want), lambda t: nested(*grads_of(t, FOUR)))
    assert_same(arrays(opt), arrays(twin))


def test_a_group_has_its_arrays_in_the_order_of_their_structure():
    b, a = np.ones(2), np.ones(3)
    [group] = schuss.SGD({"b": b, "a": a}, lr=1.0).param_groups
    assert [id(p) for p in group["params"]] == [id(b), id(a)]


def test_a_structure_may_have_the_key_that_groups_have():
    """Flax calls its parameters so. Only with a hyperparameter beside it does a dict look like a group."""
    w, more = np.ones(2), np.ones(3)
    opt = schuss.SGD({"params": {"w": w}, "more": [more]}, lr=1.0)
    opt.step({"params": {"w": w.copy()}, "more": [more.copy()]})
    assert not w.any() and not more.any()


A, B = [(33,), (5, 3)], [(7,), (), (16,)]


def partner(case, schedules=True):
    """The same optimizer with other hyperparameters, for a second group."""
    alike = [optimizer_options(case), spans_arrays(case)]
    rows = [c for c in of_class(case.optimizer) if [optimizer_options(c), spans_arrays(c)] == alike]
    others = rows[len(rows) // 2 :] + rows
    plain = (c for c in others[rows.index(case) :] if schedules or not has_schedule(c))
    return next(plain, Case(f"{case}, constant", case.optimizer, case.kwargs | {"lr": 0.02}))


def has_schedule(case):
    return callable(case.kwargs.get("lr"))


def both(opt, other):
    return parameters(opt) + parameters(other) + list(states(opt).values()) + list(states(other).values())


@each_case_but(spans_arrays, is_newton, depends_on_position)
def test_groups(case):
    """Two groups give the results of two optimizers."""
    other = partner(case)
    a, b, x, y = params_of(A), params_of(B, seed=2), params_of(A), params_of(B, seed=2)
    layers = {f"layer{k}": p for k, p in enumerate(b)}
    groups = [{"params": a} | group_options(case), {"params": layers} | group_options(other)]
    opt = class_of(case)(groups, **REQUIRED.get(case.optimizer, {}), **optimizer_options(case))
    first, second = run(case, x, lambda t: grads_of(t, A)), run(other, y, lambda t: grads_of(t, B))
    for t in STEPS:
        opt.step([grads_of(t, A), {f"layer{k}": g for k, g in enumerate(grads_of(t, B))}])
    assert_same(arrays(opt), both(first, second))


@each_case_but(spans_arrays, is_newton, depends_on_position)
def test_group_added_later(case):
    """A group that is added later counts its own steps from 1, so that its bias corrections are right.

    It is added after a multiple of every k in the table, because the slow weights of all groups move at the same step.
    """
    other = partner(case, schedules=False)
    a, b, x, y = params_of(A), params_of(B, seed=2), params_of(A), params_of(B, seed=2)
    opt, first = build(case, a), build(case, x)
    for t in range(1, 31):
        opt.step(grads_of(t, A))
        first.step(grads_of(t, A))
    opt.add_param_group({"params": b} | group_options(other))
    second = class_of(case)(
        [{"params": y} | group_options(other)], **REQUIRED.get(case.optimizer, {}), **optimizer_options(case)
    )
    for t in range(31, 38):
        opt.step([grads_of(t, A), grads_of(t, B)])
        first.step(grads_of(t, A))
        second.step([grads_of(t, B)])
    assert_same(arrays(opt), both(first, second))
    steps = [o.state_dict()["param_groups"][0]["step"] for o in (first, second)]
    assert (opt.step_count, [g["step"] for g in opt.state_dict()["param_groups"]]) == (37, steps)
    assert steps == [37, 7] or case.kwargs.get("pullback") == "reset"


def test_messages_number_the_first_group_once_there_is_another():
    opt, late = schuss.EMA(schuss.SGD(np.ones(3), lr=0.1)), np.ones(2)

    def refuses_a_wrong_value(place):
        with pytest.raises(ValueError) as raised:
            opt.param_groups[0]["weight_decay"] = -1
        assert str(raised.value) == f"{place}weight_decay must be a number >= 0, got -1"

    with pytest.raises(ValueError, match=r"^param_groups\[1\]: lr must be a number"):
        opt.add_param_group({"params": late, "lr": -1})
    refuses_a_wrong_value("")
    opt.add_param_group({"params": late})
    refuses_a_wrong_value("param_groups[0]: ")


@each_optimizer_but(is_newton, spans_arrays)
def test_groups_take_the_constructors_values(case):
    """A group without its own value takes the constructor's keyword."""
    a, x = params_of(A), params_of(A)
    make = functools.partial(class_of(case), max_grad_norm=None)
    opt = make([{"params": a[0]}, {"params": [a[1]], "lr": 0.25}], lr=0.5)
    assert [g["lr"] for g in opt.param_groups] == [0.5, 0.25]
    twins = [make(p, lr=lr) for p, lr in zip(x, (0.5, 0.25), strict=True)]
    for t in STEPS:
        g = grads_of(t, A)
        opt.step([g[0], [g[1]]])
        for twin, grad in zip(twins, g, strict=True):
            twin.step(grad)
    assert_same(parameters(opt), x)


def test_groups_compare_and_hash_by_identity():
    groups = schuss.SGD([{"params": [np.ones(2)]}, {"params": [np.ones(2)]}]).param_groups
    assert [groups.index(group) for group in groups] == [0, 1] and len({*groups}) == 2 and groups[1] in groups
    assert groups[0] != groups[1] and groups[0] != dict(groups[0])


def test_mixed_dtypes():
    """One optimizer takes arrays of all dtypes, and computes each in its own compute dtype."""
    case = TYPICAL["AdamW"]
    dtypes = ["float32", "float64", "float16", "float32"]
    params = [params_of([(50,)], d)[0] for d in dtypes]
    want = [params_of([(50,)], d)[0] for d in dtypes]
    run(case, params, lambda t: [grads_of(t, [(50,)])[0] for _ in dtypes])
    for q in want:
        run(case, q, lambda t: grads_of(t, [(50,)])[0])
    assert_same(params, want)
