"""Training continues bit for bit from a state_dict; one that does not fit is refused as a whole."""

import copy
import pickle

import numpy as np
import pytest
from helpers import (
    F64,
    TYPICAL,
    assert_same,
    assert_unchanged,
    build,
    class_of,
    each_optimizer_newton_too,
    grads_of,
    group_options,
    is_quantized,
    leaves,
    parameters,
    params_of,
    sampled_cases,
    shared,
    snapshot,
    spans_arrays,
    state_shape,
    states,
)
from nested import SHAPES, each_other_dtype, start, structure, take

import schuss


def resumed(case, opt, state, dtype=F64):
    """A new optimizer over copies of opt's parameters, with a loaded state."""
    other = build(case, structure([p.copy() for p in parameters(opt)]))
    other.load_state_dict(state)
    return other


COPIES = {
    "as it is": lambda d: d,
    "deepcopy": copy.deepcopy,
    "pickle": lambda d: pickle.loads(pickle.dumps(d)),
}


@sampled_cases
@pytest.mark.parametrize("how", COPIES)
def test_resume(case, how):
    opt = start(case)
    take(opt, range(1, 5))
    other = resumed(case, opt, COPIES[how](opt.state_dict()))
    assert_unchanged(other, snapshot(opt), "just loaded")
    take(opt, range(5, 9))
    assert other.step_count == 4, "nothing is shared"
    take(other, range(5, 9))
    assert_unchanged(other, snapshot(opt), "four steps later")


@each_optimizer_newton_too
@each_other_dtype
def test_resume_dtypes(case, dtype):
    opt = start(case, dtype)
    take(opt, range(1, 5), dtype)
    other = resumed(case, opt, opt.state_dict(), dtype)
    take(opt, range(5, 9), dtype)
    take(other, range(5, 9), dtype)
    assert_unchanged(other, snapshot(opt))


@sampled_cases
def test_state_dict(case):
    """Nested Python objects and NumPy arrays: hyperparameters, step counts, and the state's own arrays, not copies."""
    opt = start(case)
    first = opt.state_dict()
    assert set(first) >= {"optimizer", "step", "skipped_steps", "param_groups", "state"}
    assert (first["optimizer"], first["step"], first["skipped_steps"]) == (case.optimizer, 0, 0)
    [group], [state] = first["param_groups"], first["state"]
    assert set(group) >= set(group_options(case)) | {"step"} and "params" not in group
    take(opt, [1, 2])
    d = opt.state_dict()
    assert (d["step"], d["param_groups"][0]["step"]) == (2, 2)
    assert all(type(a) is np.ndarray and (a.shape, a.dtype) == ((), F64) for a in shared(opt).values())
    assert list(d["state"][0]) == list(state), "the state exists before the first step"
    for name, tree in state.items():
        assert type(tree) is dict and type(tree[1]) is list and type(tree["1"]) is tuple
        for a, b, shape in zip(leaves(tree), leaves(d["state"][0][name]), SHAPES, strict=True):
            if state_shape(case, name, shape) is None:
                assert a is None and b is None
                continue
            assert type(a) is np.ndarray
            assert a.shape == state_shape(case, name, shape) or name.endswith("_scale")
            assert a.dtype == F64 or is_quantized(case)
            assert_same([a], [b], "a view is live")
            assert a.size == 0 or np.shares_memory(a, b)
    for key, value in group.items():
        if key in case.kwargs and not callable(case.kwargs[key]):
            assert value == case.kwargs[key]


@each_optimizer_newton_too
def test_resume_groups(case):
    """Hyperparameters and step counts of each group are restored, also of a group that was added later."""
    rate = 0.0 if spans_arrays(case) else 0.125  # Prodigy's rates must be equal or 0

    def fresh(params):
        return class_of(case)([{"params": params[:1]}, {"params": params[1]}], lr=0.01)

    def late(params):
        own = {} if spans_arrays(case) else group_options(case)  # what an estimate for all depends on is equal in all
        return {"params": {"c": params[2]}} | own | {"lr": 0.01}

    def grads(t):
        a, b, c, _ = grads_of(t, SHAPES)
        return [[a], b, {"c": c}]

    params = params_of(SHAPES)
    opt = fresh(params)
    for t in range(1, 4):
        opt.step(grads(t)[:2])
    opt.add_param_group(late(params))
    opt.param_groups[1]["lr"] = rate
    name = "weight_decay" if "weight_decay" in opt.param_groups[0] else "lr"
    opt.param_groups[0][name] = 0.25
    opt.step(grads(4))
    again = [p.copy() for p in params]
    other = fresh(again)
    other.add_param_group(late(again))
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert other.param_groups[1]["lr"] == rate and other.param_groups[0][name] == 0.25
    assert [g["step"] for g in other.state_dict()["param_groups"]] == [4, 4, 1]
    for t in range(5, 8):
        opt.step(grads(t))
        other.step(grads(t))
    assert_unchanged(other, snapshot(opt))


def test_resume_keeps_the_count_of_skipped_steps():
    case = TYPICAL["SGD"]
    opt = build(case, structure(params_of(SHAPES)), nonfinite="skip")
    opt.step(structure([np.full(s, np.nan) for s in SHAPES]))
    take(opt, [1])
    other = resumed(case, opt, opt.state_dict())
    assert (other.step_count, other.skipped_steps) == (1, 1)


def test_loading_copies():
    opt = start(TYPICAL["Adam"])
    take(opt, [1])
    saved = copy.deepcopy(opt.state_dict())
    other = resumed(TYPICAL["Adam"], opt, saved)
    kept = [a.copy() for a in states(other).values()]
    for tree in saved["state"][0].values():
        for a in leaves(tree):
            a[...] = 99
    assert_same(list(states(other).values()), kept)


REFUSED = {
    "another optimizer": lambda d: d | {"optimizer": "Adagrad"},
    "no step": lambda d: {k: v for k, v in d.items() if k != "step"},
    "a negative step": lambda d: d | {"step": -1},
    "a group too many": lambda d: d | {"param_groups": d["param_groups"] * 2, "state": d["state"] * 2},
    "a state missing": lambda d: d | {"state": [{"m": d["state"][0]["m"]}]},
    "a state too many": lambda d: d | {"state": [d["state"][0] | {"u": d["state"][0]["m"]}]},
    "a wrong structure": lambda d: d | {"state": [d["state"][0] | {"v": leaves(d["state"][0]["v"])}]},
    "a wrong shape": lambda d: d | {"state": [d["state"][0] | {"v": with_a(d, np.zeros(32))}]},
    "a wrong dtype": lambda d: d | {"state": [d["state"][0] | {"v": with_a(d, np.zeros(33, np.float32))}]},
    "a bad hyperparameter": lambda d: d | {"param_groups": [d["param_groups"][0] | {"lr": -1.0}]},
    "not a dict": lambda d: [d],
}


def with_a(d, a):
    return d["state"][0]["v"] | {"a": a}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_state_changes_nothing(what):
    opt = start(TYPICAL["Adam"])
    take(opt, [1, 2])
    good = copy.deepcopy(opt.state_dict())
    take(opt, [3])
    before = snapshot(opt)
    with pytest.raises((ValueError, TypeError, KeyError)):
        opt.load_state_dict(REFUSED[what](good))
    assert_unchanged(opt, before)
    opt.load_state_dict(good)
    assert opt.step_count == 2


@pytest.mark.parametrize("options", [dict(state_dtype="bfloat16"), dict(state_dtype="int8"), dict(max_grad_norm=0.1)])
@pytest.mark.parametrize("way", ["state_dict", "file"])
def test_the_order_of_keys_is_no_matter(tmp_path, options, way):
    """Of dicts at any depth: random bits and sums over all arrays go by sorted keys, not by the order of insertion."""
    shapes = {"w": (300,), "b": (20, 31), 10: (5,), 9: (700,), (1, "x"): (9,), None: (3,)}

    def made(turn):
        given = [dict(list(d.items())[::turn]) for d in (shapes, {"in": 0, "out": 1})]
        values = lambda t, k: {  # noqa: E731
            key: np.random.default_rng([t, k, *map(ord, repr(key))]).standard_normal(shape).astype(np.float32)
            for key, shape in given[0].items()
        }
        params = {key: values(0, k) for key, k in given[1].items()}
        return schuss.AdamW(params, lr=0.1, **options), params, lambda t: {k: values(t, n) for k, n in given[1].items()}

    one, params, grads = made(1)
    other, turned, same_grads = made(-1)
    assert list(other.grads) == list(turned) == ["out", "in"] != list(params), "structures keep their own order"
    for t in (1, 2):
        one.step(grads(t))
    for k in params:
        for key in params[k]:
            turned[k][key][...] = params[k][key]
    if way == "file":
        schuss.save(tmp_path / "one", one)
        schuss.load(tmp_path / "one", other)
    else:
        other.load_state_dict(one.state_dict())
    for t in (3, 4):
        one.step(grads(t))
        other.step(same_grads(t))
    for k in params:
        for key in params[k]:
            assert_same([turned[k][key]], [params[k][key]], f"{k}, {key}")


def test_counters_stay_where_a_state_can_be_loaded():
    """Every state that steps reach can be loaded, also at the last number that a counter can have."""
    opt = schuss.Adam(np.ones(2), nonfinite="skip")
    state = opt.state_dict()
    last = 2**63 - 1
    state["step"] = state["skipped_steps"] = state["param_groups"][0]["step"] = last
    for _ in range(2):
        opt.load_state_dict(state)
        assert opt.step(np.ones(2)) and not opt.step(np.full(2, np.nan))
        assert opt.step_count == opt.skipped_steps == last
        state = opt.state_dict()
