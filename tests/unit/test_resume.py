"""Training continues bit for bit from a state_dict, a copy or a pickle."""

import copy
import pickle
from typing import NamedTuple

import numpy as np
import pytest
from helpers import (
    F64,
    TYPICAL,
    arrays,
    assert_same,
    assert_unchanged,
    build,
    class_of,
    each_dtype,
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

import schuss

SHAPES = [(33,), (5, 3), (), (0,)]


def structure(arrays):
    a, b, c, d = arrays
    return {"a": a, "rest": (b, [c, d])}


def start(case, dtype=F64):
    return build(case, structure(params_of(SHAPES, dtype)))


def take(opt, steps, dtype=F64):
    for t in steps:
        opt.step(structure(grads_of(t, SHAPES, dtype)))


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
@each_dtype
def test_resume_dtypes(case, dtype):
    opt = start(case, dtype)
    take(opt, range(1, 5), dtype)
    other = resumed(case, opt, opt.state_dict(), dtype)
    take(opt, range(5, 9), dtype)
    take(other, range(5, 9), dtype)
    assert_unchanged(other, snapshot(opt))


each_copy = pytest.mark.parametrize("how", [copy.deepcopy, COPIES["pickle"]], ids=["deepcopy", "pickle"])


@sampled_cases
@each_copy
def test_copies_of_optimizers(case, how):
    """A copy has its own copies of the parameters."""
    opt = start(case)
    take(opt, range(1, 5))
    other = how(opt)
    assert_unchanged(other, snapshot(opt), "just copied")
    assert not any(np.shares_memory(p, q) for p, q in zip(arrays(opt), arrays(other), strict=True))
    take(opt, range(5, 9))
    assert other.step_count == 4
    take(other, range(5, 9))
    assert_unchanged(other, snapshot(opt), "four steps later")


class Meddling:
    """A schedule that uses the optimizer while it is copied, as another thread may do."""

    def __call__(self, step):
        return 0.1

    def __deepcopy__(self, memo):
        self.use()
        return Meddling()

    def __reduce__(self):
        self.use()
        return Meddling, ()


def by_array(opt, grad):
    with opt._stepped.stepping() as update:
        update(opt._stepped._params[0], grad)


BESIDE = {
    "step": lambda opt, grad: opt.step(grad),
    "step of the inner one": lambda opt, grad: opt._stepped.step(grad),
    "rows": lambda opt, grad: opt._stepped.step_rows(([0], grad[:1])),
    "by array": by_array,
    "load": lambda opt, grad: opt.load_state_dict(opt.state_dict()),
    "another group": lambda opt, grad: opt.add_param_group({"params": np.ones(2)}),
    "sync": lambda opt, grad: opt.sync(),
    "swap": lambda opt, grad: opt.swap().__enter__(),
}


@pytest.mark.parametrize("kind", ["Adam", "Lookahead", "EMA", "accumulate"])
@pytest.mark.parametrize("beside", BESIDE)
@each_copy
def test_a_copy_is_of_one_moment(kind, beside, how):
    """The arrays are read one by one, so a copy is refused if something changes them meanwhile."""
    schedule, grad = Meddling(), np.ones((3, 2))
    opt = schuss.Adam(np.ones((3, 2)), lr=schedule)
    if kind != "Adam":
        more = ([schuss.transforms.accumulate(2)],) if kind == "accumulate" else ()
        opt = getattr(schuss, {"accumulate": "Transformed"}.get(kind, kind))(opt, *more)
    if beside in ("sync", "swap") and not hasattr(opt, beside):
        pytest.skip("not a method of this class")
    opt.step(grad)
    if (kind, beside) == ("accumulate", "another group"):
        opt.step(grad)  # within a mean none can be added
    schedule.use = lambda: (opt.step_count, opt.state_dict(), opt.metrics(), repr(opt), opt.max_grad_norm)
    assert_unchanged(how(opt), snapshot(opt), "reading changes nothing")
    schedule.use = lambda: BESIDE[beside](opt, grad)
    with pytest.raises(RuntimeError, match=r"was changed or saved while it was copied|is in the middle of a step"):
        how(opt)


class Between:
    """Something that is copied between optimizers, and uses them then."""

    use = staticmethod(lambda: None)

    def __reduce__(self):
        self.use()
        return Between, ()


@each_copy
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_wrapper_and_its_optimizer_are_copied_at_one_moment(how, wrapped):
    inner, between, grad = schuss.Adam(np.ones(3), lr=0.1), Between(), np.ones(3)
    ema, other = schuss.EMA(schuss.Lookahead(inner) if wrapped else inner), schuss.Lookahead(inner)
    ema.step(grad)
    opt, _, copied, _ = how([inner, between, ema, other])
    assert copied._stepped is opt
    between.use = lambda: ema.step(grad)
    for before in (inner, other):
        with pytest.raises(RuntimeError, match="was changed or saved while it was copied"):
            how([before, between, ema])
    copied, _, opt = how([ema, between, inner])
    assert copied._stepped is opt and copied.step_count == opt.step_count == inner.step_count - 1


@each_copy
def test_no_copy_while_the_parameters_are_others(how):
    """Neither of a wrapper nor of what it wraps, whose states do not belong to these parameters."""
    w, message = np.ones(3), r"is in the middle of a step|are at"
    ema = schuss.EMA(schuss.SGD(w, lr=0.5))
    sam = schuss.SAM(schuss.SGD(w.copy(), lr=0.5))
    ema.step(w.copy())
    sam.first_step(np.ones(3))
    with ema.swap():
        for opt in (ema, ema.optimizer, sam, sam.optimizer):
            with pytest.raises(RuntimeError, match=message):
                how(opt)
    sam.second_step(np.ones(3))
    for opt in (ema, ema.optimizer, sam, sam.optimizer):
        assert_unchanged(how(opt), snapshot(opt))
    w, refused = np.ones(3), []

    def closure():
        with pytest.raises(RuntimeError, match=message) as error:
            how(lbfgs)
        refused.append(error)
        return float(w @ w), 2 * w

    lbfgs = schuss.LBFGS(w, lr=0.1)
    lbfgs.step(closure)
    assert refused
    assert_unchanged(how(lbfgs), snapshot(lbfgs))


@each_copy
def test_copies_keep_accumulated_gradients(how):
    opt = start(TYPICAL["Adam"])
    for g in leaves(opt.grads):
        g[...] = 0.5
    other = how(opt)
    assert_same(leaves(other.grads), leaves(opt.grads))
    assert not any(np.shares_memory(a, b) for a, b in zip(leaves(opt.grads), leaves(other.grads), strict=True))


@each_dtype
@each_copy
def test_copies_keep_dtypes_layouts_and_groups(dtype, how):
    (a, b, c, _), (x, y, z, _) = params_of(SHAPES, dtype), grads_of(1, SHAPES, dtype)
    opt = schuss.Adam([{"params": {"w": np.asfortranarray(b)}, "lr": 0.5}, {"params": (a, c)}], nonfinite="skip")
    grads, bad = [{"w": y}, (x, z)], [{"w": np.full_like(y, np.nan)}, (x, z)]
    assert opt.step(grads) is True and opt.step(bad) is False
    opt.add_param_group({"params": np.ones(3, dtype)})
    other = how(opt)
    assert_unchanged(other, snapshot(opt), "just copied")
    for o in (opt, other):
        assert o.step([*grads, np.ones(3, dtype)]) is True and o.step([*bad, np.ones(3, dtype)]) is False
    assert_unchanged(other, snapshot(opt), "two steps later")
    assert other.param_groups[0]["params"][0].flags.f_contiguous


@each_copy
def test_copies_keep_the_initial_learning_rate(how):
    """Independent decay divides by it, also when the current rate is 0."""
    opt = schuss.AdamW([{"params": np.ones(3), "decay_form": "independent", "weight_decay": 0.5}], lr=0.5)
    opt.param_groups[0]["lr"] = 0.0
    other = how(opt)
    assert other.param_groups[0]["lr"] == 0.0
    for o in (opt, other):
        o.param_groups[0]["lr"] = 0.25
        o.step([np.zeros(3)])
    assert_same(parameters(other), [np.full(3, 0.75)])
    assert_same(parameters(opt), [np.full(3, 0.75)])


def ramp(step):
    """A plain function, which has no initial_lr."""
    return 0.25 * min(step, 1)


@each_copy
def test_copies_keep_the_constructors_values(how):
    """Groups that are added take them, whatever the present ones are."""
    opt = schuss.SGD([np.ones(3)], lr=0.5)
    opt.lr = 0.25
    other = how(opt)
    other.add_param_group({"params": [np.ones(3)]})
    assert [group["lr"] for group in other.param_groups] == [0.25, 0.5]


class Halved(NamedTuple):
    """A schedule that is a tuple."""

    first: float

    def __call__(self, step):
        return self.first / 2**step


@each_copy
def test_copies_of_groups_with_a_schedule_that_is_a_tuple(how):
    opt = how(schuss.SGD([{"params": [np.ones(3)]}], lr=Halved(0.5)))
    opt.step([[np.ones(3)]])
    assert opt.param_groups[0]["lr"] == Halved(0.5) and opt.lr == 0.25


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda group: pickle.loads(pickle.dumps(group))])
def test_copies_of_a_group_are_dicts(how):
    """Writing to one does not change the optimizer."""
    w = np.ones(3)
    opt = schuss.SGD([w], lr=0.5)
    copied = how(opt.param_groups[0])
    assert type(copied) is dict and list(copied) == list(opt.param_groups[0]) and copied["lr"] == 0.5
    copied["lr"] = 8.0
    opt.step([np.ones(3)])
    assert (w == 0.5).all()


@each_copy
@pytest.mark.parametrize("grouped", [False, True])
def test_copies_keep_the_initial_learning_rate_of_a_schedule_that_begins_at_zero(how, grouped):
    w = np.ones(3)
    opt = schuss.AdamW([{"params": w}] if grouped else w, lr=0.5, weight_decay=0.5, decay_form="independent")
    opt.param_groups[0]["lr"] = ramp
    grads = [np.zeros(3)] if grouped else np.zeros(3)
    opt.step(grads)
    other = how(opt)
    for o in (opt, other):
        o.step(grads)
        assert_same(parameters(o), [np.full(3, 0.75)])


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
        assert type(tree) is dict and type(tree["rest"]) is tuple and type(tree["rest"][1]) is list
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


@pytest.mark.parametrize("wrapped", [False, True])
def test_unpickling_over_read_only_memory(wrapped):
    """Ray and joblib deliver such buffers, not aligned either: the optimizer has copies then."""
    params = {"w": np.arange(6.0).reshape(2, 3), "b": [np.asfortranarray(np.ones((2, 3), np.float32))]}
    opt = schuss.Adam([{"params": params, "betas": (0.5, 0.75)}], lr=0.1)
    opt = schuss.Lookahead(opt, k=2) if wrapped else opt
    grads = lambda opt: [{"w": np.ones((2, 3)), "b": [np.ones((2, 3))]}]  # noqa: E731
    opt.grads[0]["w"][...] = 1.0
    opt.step(grads(opt))
    buffers = []
    text = pickle.dumps(opt, protocol=5, buffer_callback=buffers.append)
    memory = [memoryview(b"x" + bytes(buffer)).toreadonly()[1:] for buffer in buffers]
    other = pickle.loads(text, buffers=memory)
    assert_unchanged(other, snapshot(opt))
    for o in (opt, other):
        o.step(zero_grads=True)
        o.step(grads(o))
    assert_unchanged(other, snapshot(opt))
    assert buffers and not other.grads[0]["w"].any()
