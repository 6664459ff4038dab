"""Steps over some rows of tables: step_rows."""

import copy
import json
import math
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from helpers import DATA, DTYPES, F32, F64, arrays, assert_close, assert_same, cast, refused, snapshot, states
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Reference

import schuss

RECORDS = [c for c in json.loads((DATA / "wider.json").read_text())["special"] if c["optimizer"] == "SparseAdam"]
#: The steps that special cases were recorded at.
STEPS = (1, 2, 3, 5, 6, 10, 11, 25)

KINDS = {
    "SGD": (schuss.SGD, {}),
    "SGD, decay": (schuss.SGD, dict(weight_decay=0.1, maximize=True)),
    "SGD, momentum": (schuss.SGD, dict(momentum=0.9, dampening=0.5)),
    "SGD, Nesterov": (schuss.SGD, dict(momentum=0.9, nesterov=True, momentum_form="velocity")),
    "Adagrad": (schuss.Adagrad, dict(lr_decay=0.1, initial_accumulator_value=0.1)),
    "Adagrad, row-wise": (schuss.Adagrad, dict(row_wise=True, initial_accumulator_value=0.1, weight_decay=0.1)),
    "Adadelta": (schuss.Adadelta, {}),
    "RMSprop": (schuss.RMSprop, dict(centered=True, momentum=0.5)),
    "Adam": (schuss.Adam, dict(eps_form="keras")),
    "Adam, AMSGrad": (schuss.Adam, dict(amsgrad=True, weight_decay=0.1)),
    "Adam, catching up": (schuss.Adam, dict(catch_up=True)),
    "AdamW": (schuss.AdamW, dict(weight_decay=0.1)),
    "AdamW, catching up": (schuss.AdamW, dict(weight_decay=0.1, catch_up=True)),
    "AdamMini": (schuss.AdamMini, dict(weight_decay=0.1)),
    "Lion": (schuss.Lion, {}),
    "FTRL": (schuss.FTRL, dict(l1=0.01)),
}
each_kind = pytest.mark.parametrize(("kind", "options"), KINDS.values(), ids=list(KINDS))


def summed(shape, indices, values, dtype):
    """The gradient of the whole table: rows that occur several times are added in order."""
    dense = np.zeros(shape, F64 if dtype == F64 else F32)
    for index, value in zip(indices, values.astype(dense.dtype), strict=True):
        dense[index] += value
    return dense


def rows_of(opt, rows):
    """These rows of the parameter and of its states."""
    return [a[rows].copy() for a in arrays(opt)]


def check_steps(kind, options, dtype, shape, draws, values_dtype=None):
    """Each step over rows gives these the bits of a step over the whole table, and leaves all others alone."""
    rng = np.random.default_rng(5)
    table = cast(rng.standard_normal(shape), dtype)
    twin = table.copy()
    opt, dense = kind(table, lr=0.1, **options), kind(twin, lr=0.1, **options)
    for indices in draws:
        values = cast(rng.standard_normal((len(indices), *shape[1:])), values_dtype or dtype)
        touched = np.unique(np.asarray(indices, np.int64))
        rest = np.setdiff1d(np.arange(shape[0]), touched)
        dense.load_state_dict(copy.deepcopy(opt.state_dict()))
        twin[...] = table
        before = rows_of(opt, rest)
        assert opt.step_rows((np.asarray(indices, np.int64), values), grad_scale=2.0)
        assert dense.step(summed(shape, indices, values, dtype), grad_scale=2.0)
        assert_same(rows_of(opt, rest), before, "other rows")
        assert_same(rows_of(opt, touched), rows_of(dense, touched), "these rows")
        assert opt.step_count == dense.step_count


@each_kind
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_rows_have_the_bits_of_a_dense_step(kind, options, dtype):
    draws = [[3, 3, 9, 0, 3], [5], [9, 8, 7, 6, 9, 5], [], [0]]
    for shape in [(10, 33), (10, 2, 3), (10, 1100)]:
        check_steps(kind, options, dtype, shape, draws)


@given(
    st.sampled_from(list(KINDS.values())),
    st.lists(st.integers(0, 5), max_size=3).map(tuple),
    st.lists(st.lists(st.integers(0, 6), max_size=9), min_size=1, max_size=4),
    st.sampled_from(list(DTYPES.values())),
    st.sampled_from(list(DTYPES.values())),
    st.integers(1, 3),
)
@settings(max_examples=150, derandomize=True)
def test_any_rows(kind, width, draws, dtype, values_dtype, threads):
    kind, options = kind
    schuss.set_num_threads(threads)
    if kind is schuss.AdamMini and not width:
        width = (1,)
    check_steps(kind, options, dtype, (7, *width), draws, values_dtype)


@each_kind
def test_bfloat16_states_and_master_weights(kind, options):
    draws = [[3, 3, 9, 0, 3], [5], [0, 9]]
    if len(states(kind(np.ones((2, 2), F32), **options))) == 0:
        return
    nearest = dict(state_dtype="bfloat16", state_rounding="nearest")
    check_steps(kind, options | nearest, F32, (10, 300), draws)
    check_steps(kind, options | dict(master_weights=True), np.dtype(ml_dtypes.bfloat16), (10, 300), draws)


@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
@each_kind
def test_stochastic_rounding_has_the_bits_of_the_place_in_the_table(kind, options, dtype):
    if len(states(kind(np.ones((2, 2), F32), **options))) == 0:
        return
    options = options | dict(state_dtype="bfloat16", state_seed=3)
    for shape in ((40, 100), (40, 1500), (40, 3)):
        check_steps(kind, options, dtype, shape, [[3, 3, 39, 0], [5, 39]])


def test_stochastic_rounding_of_several_tables():
    """The places are those of each table among all arrays."""

    def make():
        rng = np.random.default_rng(6)
        tables = [rng.standard_normal((9, width)).astype(F32) for width in (5, 70)]
        return tables, schuss.AdamMini(tables, lr=0.1, state_dtype="bfloat16", state_seed=3)

    (rows, opt), (dense, whole) = make(), make()
    grads = [np.full((2, width), 0.3, F32) for width in (5, 70)]
    given = [(np.array([1, 8]), grads[0]), (np.array([0, 8]), grads[1])]
    opt.step_rows(given)
    whole.step([summed((9, g.shape[1]), index, g, F32) for index, g in given])
    for k, (index, _) in enumerate(given):
        touched = [a[index] for a in (rows[k], opt.state_dict()["state"][0]["m"][k])]
        assert_same(touched, [a[index] for a in (dense[k], whole.state_dict()["state"][0]["m"][k])], "these rows")


@pytest.mark.parametrize("name", ["Adam", "Adam, catching up", "Adagrad, row-wise", "SGD"])
def test_same_bits_on_any_number_of_threads(name):
    kind, options = KINDS[name]
    rng = np.random.default_rng(2)
    indices = rng.integers(0, 3000, 5000)
    values = rng.standard_normal((5000, 40)).astype(F32)
    results = []
    for threads in (1, 2, 4):
        schuss.set_num_threads(threads)
        opt = kind(np.ones((3000, 40), F32), max_grad_norm=1.0, **options)
        for _ in range(3):
            opt.step_rows((indices, values))
        results.append([*arrays(opt), np.float64(opt.grad_norm)])
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


LEVELS = """
import hashlib, numpy as np, schuss
rng = np.random.default_rng(1)
print(schuss.cpu_level())
for kind, options in [(schuss.AdamW, {}), (schuss.Adam, {"catch_up": True}), (schuss.Adagrad, {"row_wise": True})]:
    opt = kind(np.ones((50, 37), np.float32), max_grad_norm=1.0, **options)
    for _ in range(3):
        opt.step_rows((rng.integers(0, 50, 90), rng.standard_normal((90, 37)).astype(np.float32)))
    arrays = [*opt.param_groups[0]["params"], *opt.state_dict()["state"][0].values()]
    print(hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest(), opt.grad_norm.hex())
"""


def test_same_bits_on_any_cpu_level():
    results = {}
    for level in schuss.cpu_levels():
        run = [sys.executable, "-c", LEVELS]
        done = subprocess.run(run, env=os.environ | {"SCHUSS_CPU": level}, capture_output=True, text=True, check=True)
        used, *results[level] = done.stdout.splitlines()
        assert used == level
    assert all(lines == results["baseline"] for lines in results.values())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.data())
@settings(max_examples=60, derandomize=True)
def test_repeated_rows_are_added(indices, data):
    """Whole numbers have exact sums: it does not matter how a row's gradient is divided, or where its parts are."""
    values = np.array([[data.draw(st.integers(-9, 9)) for _ in range(3)] for _ in indices], F32)
    order = data.draw(st.permutations(range(len(indices))))
    halves = np.concatenate([values[order] / 2, values / 2])
    results = []
    for rows, grads in [(indices, values), (np.array([*np.array(indices)[order], *indices]), halves)]:
        opt = schuss.Adagrad(np.ones((5, 3), F32), lr=0.1, max_grad_norm=2.0)
        opt.step_rows((rows, grads))
        results.append(arrays(opt))
    assert_same(*results)


@pytest.mark.parametrize("case", RECORDS, ids=lambda c: str(c["kwargs"]))
def test_sparse_adam_of_torch(case):
    rows, width = case["shapes"][0]
    start = np.reshape([math.cos(1.3 * (i + 1)) * 2.0 for i in range(rows * width)], (rows, width))
    table = start.copy()
    betas = tuple(case["kwargs"].get("betas", (0.9, 0.999)))
    opt = schuss.Adam(table, eps_form="keras", **(case["kwargs"] | {"betas": betas}))
    recorded = dict(zip(STEPS, case["params"], strict=True))
    for t in range(1, STEPS[-1] + 1):
        values = [[math.sin(0.7 * t * (c + 1) + j) * 10.0 ** ((c % 5) - 2) for c in range(width)] for j in range(3)]
        opt.step_rows(([t % rows, (2 * t + 1) % rows, t % rows], np.array(values)))
        if t in recorded:
            want = np.reshape(recorded[t][0], table.shape)
            assert np.max(abs(table - want)) <= 1e-9 * np.max(abs(want - start))
    assert not np.array_equal(table, start)


def test_lazy_adam_follows_its_equations():
    """The reference's Adam, of each row by itself, with the optimizer's step count."""
    rng = np.random.default_rng(4)
    start = rng.standard_normal((6, 4))
    table, rows = start.copy(), [Reference("Adam", [row], lr=0.1) for row in start]
    opt = schuss.Adam(table, lr=0.1)
    for t in range(8):
        indices = rng.permutation(6)[:3]
        values = rng.standard_normal((3, 4))
        opt.step_rows((indices, values))
        for row, value in zip(indices, values, strict=True):
            rows[row].since = t
            rows[row].step([value])
    assert_close([table], [np.stack([row.params[0] for row in rows])], 1e-12)


def test_row_wise_adagrad_follows_its_equations():
    rng = np.random.default_rng(4)
    table = rng.standard_normal((6, 4))
    want, sums = table.copy(), np.zeros(6)
    opt = schuss.Adagrad(table, lr=0.1, eps=1e-8, weight_decay=0.1, row_wise=True)
    for _ in range(8):
        indices, values = rng.permutation(6)[:3], rng.standard_normal((3, 4))
        opt.step_rows((indices, values))
        for row, value in zip(indices, values, strict=True):
            g = value + 0.1 * want[row]
            sums[row] += np.mean(g * g)
            want[row] -= 0.1 * g / (np.sqrt(sums[row]) + 1e-8)
    assert_close([table, opt.state_dict()["state"][0]["s"].ravel()], [want, sums], 1e-12)
    assert opt.state_dict()["state"][0]["s"].shape == (6, 1)


def test_caught_up_moments_are_those_of_dense_steps():
    rng = np.random.default_rng(3)
    table = rng.standard_normal((6, 4))
    opt, dense = (schuss.Adam(table.copy(), lr=0.1, betas=(0.8, 0.95), catch_up=c) for c in (True, False))
    for t in range(1, 20):
        indices, values = rng.permutation(6)[:3], rng.standard_normal((3, 4))
        opt.step_rows((indices, values))
        dense.step(summed((6, 4), indices, values, F64))
        moments, wanted = opt.state_dict()["state"][0], dense.state_dict()["state"][0]
        assert (moments["last"][indices] == t).all()
        assert_close([moments[name][indices] for name in "mv"], [wanted[name][indices] for name in "mv"], 1e-12)


def test_dense_steps_of_adam_that_catches_up_are_those_of_adam():
    tables = [np.ones((5, 40), F32), np.ones((5, 40), F32)]
    opts = [schuss.Adam(table, lr=0.1, catch_up=c) for table, c in zip(tables, (True, False), strict=True)]
    for t in range(4):
        for opt in opts:
            opt.step(np.full((5, 40), 0.3 * t, F32))
    assert_same(*[[table] for table in tables])


def model():
    return {"table": np.ones((6, 4), F32), "other": np.ones((5, 2), F32), "w": np.ones(3, F32)}


@pytest.mark.parametrize("kind", [schuss.Newton, schuss.LBFGS, schuss.ScheduleFreeSGD, schuss.LAMB])
def test_an_optimizer_without_rows_takes_no_step_over_whole_arrays_either(kind):
    """Newton would need the Hessian, and a schedule-free optimizer the mode of training."""
    w = np.ones(2)
    opt = kind(w, lr=0.5)
    if kind is schuss.ScheduleFreeSGD:
        opt.eval()
    with pytest.raises(TypeError, match=f"^{kind.__name__} cannot step over rows; those that can are Adadelta, "):
        opt.step_rows(np.ones(2))
    assert (w == 1.0).all() and opt.step_count == 0


def test_rows_and_whole_arrays_in_one_step():
    """Each array is as if it were alone, but for the norm, which is that of all gradients."""
    rng = np.random.default_rng(3)
    values, w = rng.standard_normal((3, 4)), rng.standard_normal(3)
    params, alone = model(), model()
    opt = schuss.Adam(params, lr=0.1, track_grad_norm=True)
    opts = {name: schuss.Adam(alone[name], lr=0.1) for name in alone}
    opt.step_rows({"table": ([4, 0, 4], values), "other": None, "w": w})
    opts["table"].step_rows(([4, 0, 4], values))
    opts["w"].step(w)
    total = summed((6, 4), [4, 0, 4], values.astype(F32), F32).astype(F64)
    assert math.isclose(opt.grad_norm, math.sqrt((total**2).sum() + (w**2).sum()), rel_tol=1e-6)
    # An array without gradient has missed the step, one with rows has not.
    opt.step_rows({"table": ([1], values[:1]), "other": ([2], np.ones((1, 2)))}, partial=True)
    opts["table"].step_rows(([1], values[:1]))
    opts["other"].step_rows(([2], np.ones((1, 2))))
    assert opt.state_dict()["param_groups"][0]["missed_steps"] == {"['other']": 1, "['w']": 1}
    assert opt.step_count == 2
    opt.step({"table": values[:1] + np.zeros((6, 4)), "other": None, "w": w})
    opts["table"].step(values[:1] + np.zeros((6, 4)))
    opts["w"].step(w)
    for name in params:
        assert_same([params[name]], [alone[name]], name)


def test_empty_lists_of_rows():
    table, bias = np.ones((3, 2)), np.ones(2)
    opt = schuss.SGD([table, bias], lr=0.5)
    assert opt.step_rows([([], np.zeros((0, 2))), np.ones(2)])
    assert (table == 1.0).all() and (bias == 0.5).all()


def test_groups_and_schedules():
    tables = [np.ones((4, 2)), np.ones((3, 2))]
    opt = schuss.SGD([{"params": tables[0]}, {"params": [tables[1]], "lr": lambda step: 0.5 / (1 + step)}], lr=1.0)
    for _ in range(2):
        opt.step_rows([([1], np.ones((1, 2))), [([2, 2], np.ones((2, 2)))]])
    np.testing.assert_allclose(tables[0], [[1, 1], [-1, -1], [1, 1], [1, 1]])
    np.testing.assert_allclose(tables[1], [[1, 1], [1, 1], [-0.5, -0.5]])


def test_clipping_by_the_norm_of_the_sums():
    table = np.zeros((3, 1))
    opt = schuss.SGD(table, lr=1.0, max_grad_norm=1.0)
    opt.step_rows(([1, 2, 1], np.array([[1.0], [4.0], [2.0]])))
    assert opt.grad_norm == 5.0
    np.testing.assert_allclose(table.ravel(), [0, -0.6, -0.8], rtol=1e-6)


def test_norms_of_huge_and_tiny_float64_rows():
    for scale in (1e200, 1e-200):
        opt = schuss.SGD([np.zeros((3, 1)), np.zeros(1)], lr=0.0, track_grad_norm=True)
        opt.step_rows([([2], np.array([[3.0 * scale]])), np.array([4.0 * scale])])
        assert math.isclose(opt.grad_norm, 5.0 * scale, rel_tol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_that_are_not_finite(bad):
    table = np.ones((4, 3), F32)
    opt = schuss.Adam([table, np.ones(2, F32)], nonfinite="error")
    before = snapshot(opt)
    values = np.ones((2, 3), F32)
    values[0, 2] = bad
    with refused(FloatingPointError, "grads[0] has a NaN or infinity, first at (3, 2); nothing was updated"):
        opt.step_rows([([3, 1], values), np.ones(2)])
    opt.nonfinite = "skip"
    assert not opt.step_rows([([3, 1], values), np.ones(2)])
    assert_same(snapshot(opt)[0], before[0])
    assert (opt.step_count, opt.skipped_steps) == (0, 1)


def test_gradients_that_are_the_table_itself():
    """They are added up before anything is written."""
    table = np.arange(6.0).reshape(3, 2)
    schuss.SGD(table, lr=1.0).step_rows(([1, 0], table[:2]))
    np.testing.assert_array_equal(table, [[-2, -2], [2, 2], [4, 5]])


@pytest.mark.parametrize("name", ["Adam, catching up", "Adagrad, row-wise"])
def test_training_goes_on_from_a_file(name, tmp_path):
    kind, options = KINDS[name]
    rng = np.random.default_rng(3)
    draws = [(rng.integers(0, 6, 4), rng.standard_normal((4, 2))) for _ in range(6)]
    opt = kind(np.ones((6, 2)), **options)
    for rows in draws[:3]:
        opt.step_rows(rows)
    schuss.save(tmp_path / "state", opt)
    again = kind(np.ones((6, 2)), **options)
    schuss.load(tmp_path / "state", again)
    copied = copy.deepcopy(opt)
    for rows in draws[3:]:
        for one in (opt, again, copied):
            one.step_rows(rows)
    assert_same(arrays(again), arrays(opt))
    assert_same(arrays(copied), arrays(opt))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs the memory that a process uses")
@pytest.mark.parametrize("name", ["SGD, momentum", "Adagrad, row-wise"])
def test_only_these_rows_are_read_and_written(name):
    """A table of 4 GB, whose pages nobody has touched yet, takes the memory of three pages, which may be large ones."""
    table = np.zeros((1 << 22, 256), F32)
    kind, options = KINDS[name]
    opt = kind(table, **(options | ({"initial_accumulator_value": 0.0} if kind is schuss.Adagrad else {})))
    rows = [3, 1 << 21, (1 << 22) - 1]
    before = resident()
    opt.step_rows((rows, np.ones((3, 256), F32)))
    assert resident() - before < 64 << 20
    assert (table[rows] != 0).all()


def resident():
    """Bytes of memory that this process uses."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
