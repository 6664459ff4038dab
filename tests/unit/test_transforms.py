"""Gradient transforms before any optimizer's step: Optax's figures, equations, state, failures, wrong calls."""

import copy
import json
import math
import pickle
import re

import numpy as np
import pytest
from helpers import DATA, DTYPES, assert_same, assert_unchanged, refused, snapshot

import schuss
from schuss import transforms as tf

CASES = [c for c in json.loads((DATA / "wider.json").read_text())["special"] if c["special"] == "transform"]
SHAPES = [(4, 3), (5,)]
OURS = {
    "adaptive_grad_clip": lambda kw: tf.agc(**kw),
    "clip_by_block_rms": lambda kw: tf.clip_by_block_rms(**kw),
    "clip_by_global_norm": lambda kw: tf.clip_by_global_norm(**kw),
    "clip": lambda kw: tf.clip(**kw),
    "zero_nans": lambda kw: tf.zero_nans(),
    "centralize": lambda kw: tf.centralize(layout="out_in"),
    "MultiSteps": lambda kw: tf.accumulate(kw["every_k_schedule"]),
    "apply_if_finite": lambda kw: tf.apply_if_finite(kw["max_consecutive_errors"]),
}
EACH = [
    tf.agc(0.05),
    tf.agc(0.05, layout="out_in"),
    tf.clip_by_block_rms(0.5),
    tf.clip_by_global_norm(2.0),
    tf.clip(0.3),
    tf.zero_nans(),
    tf.add_noise(0.5, seed=3),
    tf.centralize(),
    tf.accumulate(3),
    tf.apply_if_finite(2),
]
CHANGED = (
    "params[0] was resized, re-pointed, retyped or made read-only after the optimizer was made; make a new optimizer"
)
each_transform = pytest.mark.parametrize("transform", EACH, ids=str)


def starts(dtype=np.float64, order="C"):
    made = ([math.cos(1.3 * (i + 1) + k) * 2.0 for i in range(math.prod(s))] for k, s in enumerate(SHAPES))
    return [np.reshape(values, s).astype(dtype, order=order) for values, s in zip(made, SHAPES, strict=True)]


def waves(t, problem=""):
    grads = []
    for k, s in enumerate(SHAPES):
        values = [math.sin(0.7 * t * (i + 1) + k) * 10.0 ** ((i % 5) - 2) for i in range(math.prod(s))]
        grads.append(np.reshape(values, s))
    if "NaN" in problem and t % 5 in (2, 3, 4):
        grads[0].flat[1] = np.nan
        if "inf" in problem:
            grads[1].flat[2] = np.inf
    return grads


def number(x):
    return np.nan if x is None else float(x)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
@pytest.mark.parametrize("first", [[], [tf.clip(1.0)], [tf.centralize()]], ids=str)
def test_which_gradients_had_a_nan(first, dtype):
    """Of the last step's gradients, in the structure of the parameters; infinities are none."""
    params = {"a": np.ones(3, dtype), "b": [np.ones((2, 70_000), dtype), np.ones(0, dtype)], "c": np.ones((), dtype)}
    opt = schuss.Transformed(schuss.SGD(params, lr=0.1), [*first, tf.zero_nans()])
    assert opt.found_nan is None
    grads = copy.deepcopy(params)
    grads["b"][0][1, 69_999] = np.nan
    grads["a"][1] = np.inf
    opt.step(grads)
    assert opt.found_nan == {"a": False, "b": [True, False], "c": False}
    grads["c"][...] = np.nan
    opt.step({"a": grads["a"], "b": None, "c": grads["c"]}, partial=True)
    assert opt.found_nan == {"a": False, "b": [False, False], "c": True}
    plain = schuss.Transformed(schuss.SGD(copy.deepcopy(params), lr=0.1), first)
    plain.step(copy.deepcopy(params))
    assert plain.found_nan is None, "nobody looks for them"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['optimizer']} {case['kwargs']}")
def test_optax(case):
    """Its transformed gradients or, where steps are left out, its parameters."""
    moves = "inner" in case["kwargs"]
    params = starts()
    options = dict(lr=0.01, momentum=0.9) if moves else dict(lr=1.0)
    for t, recorded in zip(case["steps"], case["params"], strict=True):
        if t == case["steps"][0] or not moves:
            for p, start in zip(params, starts(), strict=True):
                p[...] = start
            opt = schuss.Transformed(schuss.SGD(params, **options), [OURS[case["optimizer"]](case["kwargs"])])
        opt.step(waves(t, case["problem"]))
        for p, start, want in zip(params, starts(), recorded, strict=True):
            got = p.ravel() if moves else (start - p).ravel()
            want = np.array([number(x) for x in want])
            tolerance = max(10 * case["spec_error"], 1e-9) * max(1.0, np.max(np.abs(want[np.isfinite(want)])))
            np.testing.assert_allclose(got, want, rtol=0, atol=tolerance, err_msg=f"step {t}")


def reference(transform, grads, params):
    """In float64, from the equations."""
    if isinstance(transform, tf.agc):
        result = []
        for g, p in zip(grads, params, strict=True):
            axis = None if g.ndim < 2 else (0 if transform.layout == "in_out" else 1)
            norm = lambda a, axis=axis: np.sqrt((a * a).sum(axis, keepdims=axis is not None))  # noqa: E731
            most = transform.clipping * np.maximum(norm(p), transform.eps)
            result.append(np.where(norm(g) >= most, g * most / np.maximum(norm(g), 1e-6), g))
        return result
    if isinstance(transform, tf.clip_by_block_rms):
        return [g / max(1.0, math.sqrt((g * g).mean()) / transform.threshold) for g in grads]
    if isinstance(transform, tf.clip_by_global_norm):
        norm = math.sqrt(sum(float((g * g).sum()) for g in grads))
        return grads if norm < transform.max_norm else [g * transform.max_norm / norm for g in grads]
    if isinstance(transform, tf.clip):
        return [np.clip(g, -transform.max_delta, transform.max_delta) for g in grads]
    if isinstance(transform, tf.centralize):
        axis = 0 if transform.layout == "in_out" else 1
        return [g - g.mean(axis, keepdims=True) if g.ndim > 1 else g for g in grads]
    return grads


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
@pytest.mark.parametrize(
    "transform", [t for t in EACH if not isinstance(t, (tf.add_noise, tf.accumulate, tf.apply_if_finite))], ids=str
)
def test_equations(transform, dtype, order):
    """The step of the optimizer with gradients that were changed by the equations, in the compute dtype."""
    params, twins = starts(dtype, order), starts(dtype, order)
    opt = schuss.Transformed(schuss.AdamW(params, lr=0.1), [transform])
    twin = schuss.AdamW(twins, lr=0.1)
    for t in range(1, 4):
        opt.step(waves(t))
        twin.step(reference(transform, waves(t), [p.astype(np.float64) for p in twins]))
        tolerance = {8: 1e-11, 4: 1e-5, 2: 2e-2}[dtype.itemsize]
        for p, q in zip(params, twins, strict=True):
            np.testing.assert_allclose(p.astype(np.float64), q.astype(np.float64), rtol=tolerance, atol=tolerance)


def test_noise():
    """Moments, fewer in later steps, and the same bits for a seed, a step and a place, however arrays are laid out."""

    def noise(seed=0, order="C", steps=1):
        w = np.zeros((300, 200), order=order)
        opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [tf.add_noise(4.0, 1.0, seed=seed)])
        for _ in range(steps):
            w[...] = 0
            opt.step(np.zeros((300, 200)))
        return w

    first = noise()
    assert abs(first.mean()) < 0.05 and abs(first.std() - 2.0) < 0.02 and abs((first**4).mean() / 48 - 1) < 0.1
    assert abs(noise(steps=4).std() - 1.0) < 0.02
    opt = schuss.Transformed(schuss.SGD(np.zeros(2), lr=1.0), [tf.add_noise(4.0, 2000.0)])
    opt.step(np.zeros(2))
    opt.step(np.zeros(2))
    assert opt.step_count == 2, "2**2000 is beyond float64: there is no noise any more"
    assert_same([noise(order="F").copy("C")], [first])
    assert abs(np.mean(noise(1) * first)) < 0.05


@pytest.mark.parametrize("how", ["state_dict", "file", "pickle", "deepcopy"])
@each_transform
def test_resume(transform, how, tmp_path):
    def make(params):
        return schuss.Transformed(schuss.AdamW(params, lr=0.1, nonfinite="skip"), [tf.clip(50.0), transform])

    params = starts(np.float32)
    opt = make(params)
    for t in range(1, 5):
        opt.step(waves(t, "NaN" if isinstance(transform, tf.apply_if_finite) else ""))
    if how in ("pickle", "deepcopy"):
        other = copy.deepcopy(opt) if how == "deepcopy" else pickle.loads(pickle.dumps(opt))
    else:
        other = make(copy.deepcopy(params))
        if how == "file":
            schuss.save(tmp_path / "file", opt)
            schuss.load(tmp_path / "file", other)
        else:
            other.load_state_dict(opt.state_dict())
    for t in range(5, 9):
        assert opt.step(waves(t)) == other.step(waves(t))
    assert_unchanged(other, snapshot(opt))


@each_transform
def test_around_anything(transform):
    """Groups, other wrappers, small states, scaling, zeroing."""

    def make(params):
        groups = [{"params": params[0]}, {"params": params[1], "lr": 0.01}]
        return schuss.Lookahead(schuss.AdamW(groups, lr=0.1, state_dtype="bfloat16", max_grad_norm=1.0), k=2)

    params, twins = starts(np.float32), starts(np.float32)
    opt = schuss.EMA(schuss.Transformed(make(params), [transform]))
    twin = schuss.Transformed(schuss.EMA(make(twins)), [transform])
    for t in range(1, 8):
        scaled = [8 * g for g in waves(t)]
        taken = opt.step(scaled, grad_scale=8.0, zero_grads=True)
        assert taken == twin.step(waves(t)) and not any(g.any() for g in scaled)
    assert_same(params, twins)


def test_accumulate():
    """As the optimizer with the mean of three gradients; in between nothing moves and no step counts."""
    params, twins = starts(), starts()
    opt = schuss.Transformed(schuss.AdamW(params, lr=0.1), [tf.accumulate(3), tf.clip(1.0)])
    twin = schuss.AdamW(twins, lr=0.1)
    for t in range(1, 10):
        assert opt.step(waves(t)) == (t % 3 == 0)
        if t % 3 == 0:
            means = [sum(three) / 3 for three in zip(waves(t - 2), waves(t - 1), waves(t), strict=True)]
            twin.step([np.clip(mean, -1.0, 1.0) for mean in means])
        for p, q in zip(params, twins, strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-12)
        assert opt.step_count == twin.step_count == t // 3
    assert opt.state_dict()["counts"] == [0, 0]


@each_transform
def test_a_failure_changes_nothing(transform):
    params = starts()
    opt = schuss.Transformed(schuss.AdamW(params, lr=0.1, nonfinite="error"), [transform])
    for t in range(1, 3):
        opt.step(waves(t))
    before = snapshot(opt), opt.state_dict()["counts"]
    for bad in ([np.ones((4, 3)), np.ones(4)], [np.ones((4, 3))], [np.ones((4, 3)), "x"]):
        with pytest.raises((TypeError, ValueError)):
            opt.step(bad)
    grads = waves(3)
    grads[1][:] = np.inf
    if not isinstance(transform, (tf.apply_if_finite, tf.clip)):
        with pytest.raises(FloatingPointError):
            opt.step(grads)
    assert_unchanged(opt, before[0])
    assert opt.state_dict()["counts"] == before[1]


@pytest.mark.parametrize("transform", [one for one in EACH if not isinstance(one, tf.accumulate)], ids=str)
def test_missing_gradients(transform):
    """What an array without a gradient had before changes nothing, and it stays."""
    (p, q), (twin, _) = starts(), starts()
    both, alone = (schuss.Transformed(schuss.SGD(own, lr=0.1), [transform]) for own in ([p, q], [twin]))
    both.step(waves(1))
    twin[:], before = p, q.copy()
    alone.optimizer.step_count = 1
    both.step([waves(2)[0], None])
    alone.step([waves(2)[0]])
    assert_same([p, q], [twin, before])


@pytest.mark.parametrize("transform", [one for one in EACH if not isinstance(one, tf.accumulate)], ids=str)
def test_gradients_come_and_go(transform):
    """What is prepared for some gradients is not used for others."""
    params, twins = starts(), starts()
    opt = schuss.Transformed(schuss.SGD(params, lr=0.1), [tf.clip(9.0), transform])
    for t, there in enumerate(["both", "one", "one", "other", "both", "both", "none", "other", "one"]):
        g = waves(t + 1)
        grads = [g[0] if there in ("one", "both") else None, g[1] if there in ("other", "both") else None]
        fresh = schuss.Transformed(schuss.SGD(twins, lr=0.1), [tf.clip(9.0), transform])
        fresh.step_count = t
        assert opt.step(grads) == fresh.step(grads)
        assert_same(params, twins)


def test_accumulate_needs_all():
    params = starts()
    opt = schuss.Transformed(schuss.SGD(params, lr=0.1), [tf.apply_if_finite(2), tf.accumulate(2)])
    opt.step(waves(1))
    before = snapshot(opt)
    message = "grads[1] is None, but accumulate needs a gradient for each array; leave out what is frozen"
    for grad in (waves(2)[0], np.full((4, 3), np.nan)):
        with refused(TypeError, message):
            opt.step([grad, None])
        assert_unchanged(opt, before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy deprecates setting array attributes
@pytest.mark.parametrize("steps", [0, 1])
@each_transform
def test_a_changed_parameter(transform, steps):
    """It is named, whether the work is prepared or not; once it is as it was, so are steps."""
    params, twins = starts(), starts()
    opt, twin = (schuss.Transformed(schuss.SGD(own, lr=0.1), [tf.clip(9.0), transform]) for own in (params, twins))
    for t in range(1, 4):
        if t > steps:
            params[0].shape = (12,)
            with refused(ValueError, CHANGED):
                opt.step([waves(t)[0].reshape(12), waves(t)[1]])
            params[0].shape = (4, 3)
        assert opt.step(waves(t)) == twin.step(waves(t))
    assert_same(params, twins)


def test_a_resized_array_of_a_subclass():
    """Its memory is gone."""
    w = type("Sub", (np.ndarray,), {})(1 << 20)
    w[:] = 1.0
    opt = schuss.Transformed(schuss.SGD([w], lr=0.1), [tf.agc(0.1)])
    opt.step([np.ones(1 << 20)])
    w.resize(3, refcheck=False)
    with refused(ValueError, CHANGED):
        opt.step([np.ones(1 << 20)])


class Editing(schuss.EMA):
    """Its step replaces an array in the structure that it is given, which it keeps."""

    def step(self, grads):
        self.given = list(grads)
        grads[0] = grads[0] * 0.5
        return super().step(grads)


def test_what_a_wrapped_step_does_with_gradients():
    params, twins = starts(), starts()
    inner = Editing(schuss.SGD(params, lr=0.1))
    opt, twin = schuss.Transformed(inner, []), schuss.SGD(twins, lr=0.1)
    for t in range(1, 4):
        opt.step(waves(t))
        twin.step([waves(t)[0] * 0.5, waves(t)[1]])
    assert_same(params, twins)


def test_gradients_that_were_changed_before():
    """A step given the arrays that the last step changed reads all of them before it writes any."""
    params, twins = [np.ones(3), np.ones(3)], [np.ones(3), np.ones(3)]
    inner = Editing(schuss.SGD(params, lr=0.1))
    opt, twin = schuss.Transformed(inner, []), schuss.SGD(twins, lr=0.1)
    one, two = np.arange(3.0), np.arange(3.0, 6.0)
    opt.step([one, two])
    opt.step(inner.given[::-1])
    twin.step([one * 0.5, two])
    twin.step([two * 0.5, one])
    assert_same(params, twins)


@each_transform
def test_a_group_is_added(transform):
    """Also after steps, which prepare the work."""
    params, twins = starts(), starts()
    opt = schuss.Transformed(schuss.SGD([params[0]], lr=0.1), [transform])
    opt.step([np.zeros((4, 3))])
    opt.load_state_dict({**opt.state_dict(), "counts": [0]})
    params[0][:] = twins[0]
    opt.step_count = 0
    opt.add_param_group({"params": [params[1]]})
    twin = schuss.Transformed(schuss.SGD([{"params": [array]} for array in twins], lr=0.1), [transform])
    for t in range(1, 5):
        grads = [[g] for g in waves(t)]
        assert opt.step(grads) == twin.step(grads)
    assert_same(params, twins)


def test_a_group_is_not_added_to_a_mean():
    w, x = np.zeros(1), np.zeros(1)
    opt = schuss.Transformed(schuss.SGD([{"params": w}], lr=1.0), [tf.accumulate(2)])
    opt.step([np.ones(1)])
    with pytest.raises(ValueError, match=r"^gradients have been accumulated for the next step, and new arrays have"):
        opt.add_param_group({"params": x})
    opt.step([np.ones(1)])
    opt.add_param_group({"params": x})
    for _ in range(2):
        opt.step([np.ones(1), np.ones(1)])
    assert (w, x) == (-2.0, -1.0)


def test_a_skipped_step_zeroes_gradients():
    for transform in (tf.clip_by_block_rms(1.0), tf.apply_if_finite(1)):
        w = np.ones(2)
        opt = schuss.Transformed(schuss.SGD(w, nonfinite="skip"), [transform])
        grads = np.array([np.nan, 1.0])
        assert not opt.step(grads, zero_grads=True)
        assert not grads.any() and (w == 1).all()


def test_accumulation_begins_anew_after_a_skipped_step():
    """A NaN in the mean does not stay in it."""
    w = np.ones(1)
    opt = schuss.Transformed(schuss.SGD(w, lr=0.5, nonfinite="skip"), [tf.accumulate(2)])
    grads = [np.array([g]) for g in (np.nan, 1.0, 1.0, 3.0)]
    assert [opt.step(g) for g in grads] == [False, False, False, True]
    assert w == 0.0 and opt.skipped_steps == 1


def test_zeroing_needs_writable_gradients():
    w, grads = np.ones(2), np.ones(2)
    opt = schuss.Transformed(schuss.SGD(w), [])
    grads.flags.writeable = False
    with refused(ValueError, "grads is read-only, so it cannot be zeroed; pass a copy"):
        opt.step(grads, zero_grads=True)
    assert (w == 1).all() and opt.step(grads)


def test_layer_lrs():
    params = {"body": [np.ones(2), np.ones(3)], "head": np.ones(2)}
    groups = tf.layer_lrs(params, {r"\['body'\]\[0\]": 0.25, "body": 0.5}, lr=schuss.schedules.constant(0.8))
    assert [list(group["params"]) for group in groups] == [["['body'][0]"], ["['body'][1]"], ["['head']"]]
    opt = schuss.SGD(groups)
    opt.step([{key: np.ones_like(p) for key, p in group["params"].items()} for group in groups])
    assert [params["body"][0][0], params["body"][1][0], params["head"][0]] == [0.8, 0.6, 0.19999999999999996]
    assert [group["lr"] for group in tf.layer_lrs(np.ones(2), {}, lr=0.5)] == [0.5]


@pytest.mark.parametrize(
    ("params", "part"),
    [
        ([np.ones(1) for _ in range(12)], "[{}]"),
        ({f"layer{i}": np.ones(1) for i in range(12)}, "['layer{}']"),
        ([{"layers": [np.ones(1)]} for _ in range(12)], "[{}]['layers'][0]"),
        ({(i, 2): np.ones(1) for i in range(12)}, "[({}, 2)]"),
        ({f"layer{i}": np.ones(1) for i in range(12)}, r"layer{}\b"),
    ],
)
def test_layer_lrs_by_layer(params, part):
    """Brackets of a path are no sets of characters."""
    decay = {part.format(i): 0.5 ** (12 - i) for i in range(12)}
    rates = {place: group["lr"] for group in tf.layer_lrs(params, decay, lr=1.0) for place in group["params"]}
    assert rates == {place: 0.5 ** (12 - int(re.search(r"\d+", place)[0])) for place in rates} and len(rates) == 12


def test_wrong_calls():
    w = np.ones(2)
    for call, error, message in [
        (lambda: schuss.Transformed(w, []), TypeError, "Transformed wraps an optimizer, got ndarray of shape (2,)"),
        (lambda: schuss.Transformed(schuss.SGD(w), tf.clip(1.0)), TypeError,
         "transforms must be a list, such as [schuss.transforms.clip(1.0)], got clip(max_delta=1.0)"),
        (lambda: schuss.Transformed(schuss.SGD(w), [1]), TypeError,
         "transforms[0] must be one of schuss.transforms, got 1"),
        (lambda: schuss.Transformed(schuss.SGD(w), [tf.accumulate(2)] * 2), ValueError,
         "transforms has more than one accumulate; use one"),
        (lambda: schuss.Transformed(schuss.NAG(w), []), TypeError,
         "Transformed wraps an optimizer whose step takes gradients, not NAG"),
        (lambda: schuss.Transformed(schuss.SAM(schuss.SGD(w)), []), TypeError,
         "Transformed wraps an optimizer whose step takes gradients, not SAM(SGD)"),
        (lambda: schuss.Transformed(schuss.SGD([w]), [tf.accumulate(2)]).step([None]), TypeError,
         "grads[0] is None, but accumulate needs a gradient for each array; leave out what is frozen"),
        (lambda: schuss.Transformed(schuss.SGD(w), [tf.clip(1.0)]).load_state_dict(
            schuss.Transformed(schuss.SGD(w.copy()), []).state_dict()), ValueError,
         "state['counts'] has 0 entries, but there are 1 transforms; make the optimizer with the same transforms"),
        (lambda: tf.agc(0.0), ValueError, "clipping must be a number > 0, got 0.0"),
        (lambda: tf.agc(layout="c"), ValueError, "layout must be 'in_out' or 'out_in', got 'c'"),
        (lambda: tf.clip(-1.0), ValueError, "max_delta must be a number >= 0, got -1.0"),
        (lambda: tf.clip_by_block_rms(0), ValueError, "threshold must be a number > 0, got 0"),
        (lambda: tf.clip_by_global_norm("1"), TypeError, "max_norm must be a number > 0, got '1'"),
        (lambda: tf.add_noise(1.0, seed=-1), ValueError, "seed must be a whole number >= 0 and < 2**64, got -1"),
        (lambda: tf.accumulate(0), ValueError, "k must be a whole number >= 1, got 0"),
        (lambda: tf.apply_if_finite(-1), ValueError, "max_consecutive_errors must be a whole number >= 0, got -1"),
        (lambda: tf.layer_lrs(w, [("a", 0.5)], 0.1), TypeError,
         "factors must be a dict from patterns to factors, got list"),
        (lambda: tf.layer_lrs(w, {"a": -1}, 0.1), ValueError, "factors['a'] must be a number >= 0, got -1"),
        (lambda: tf.layer_lrs({"a": w}, {"*": 0.5}, 0.1), ValueError,
         "factors['*'] is neither a part of ['a'] nor a regular expression: nothing to repeat at position 0"),
        (lambda: tf.layer_lrs(w, {1: 0.5}, 0.1), TypeError, "the patterns of factors must be strings, got 1"),
    ]:  # fmt: skip
        with refused(error, message):
            call()


def test_counters_of_other_transforms_are_refused():
    def saved(*transforms, calls=3):
        opt = schuss.Transformed(schuss.SGD(np.zeros(1), lr=1.0), transforms)
        for _ in range(calls):
            opt.step(np.ones(1))
        return opt.state_dict()

    w = np.zeros(1)
    opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [tf.accumulate(2)])
    before = snapshot(opt)
    same = "make the optimizer with the same transforms"
    with refused(ValueError, f"state['counts'][0] is 3, which accumulate(k=2) never counts; {same}"):
        opt.load_state_dict(saved(tf.accumulate(4)))
    assert_unchanged(opt, before)
    opt.load_state_dict(saved(tf.accumulate(4), calls=1))
    assert opt.step(np.array([3.0])) and w == -2.0
    opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [tf.clip(1.0), tf.accumulate(2)])
    with refused(ValueError, f"state['counts'][0] is 1, which clip(max_delta=1.0) never counts; {same}"):
        opt.load_state_dict(saved(tf.accumulate(2), tf.apply_if_finite(1), calls=1))


def test_a_nan_does_not_get_into_the_mean():
    w = np.ones(2)
    opt = schuss.Transformed(schuss.SGD({"w": w}, lr=1.0, nonfinite="error"), [tf.accumulate(2)])
    assert not opt.step({"w": np.array([1.0, 3.0])})
    before = snapshot(opt)
    for bad in (np.nan, np.inf):
        with refused(FloatingPointError, "grads['w'] has a NaN or infinity, first at (1,); nothing was updated"):
            opt.step({"w": np.array([1.0, bad])})
        assert_unchanged(opt, before)
    assert opt.step({"w": np.array([3.0, 1.0])})
    assert_same([w], [np.array([-1.0, -1.0])])


def test_nothing_accumulates_where_there_are_no_steps():
    inner = schuss.ScheduleFreeSGD(np.ones(2), lr=0.1)
    opt = schuss.Transformed(inner, [tf.accumulate(2)])
    inner.eval()
    with refused(RuntimeError, "the parameters are those for evaluation; call train() before the next step"):
        opt.step(np.ones(2))
    inner.train()
    assert not opt.step(np.ones(2)) and opt.step(np.ones(2))
    base = schuss.SGD(np.ones(2), lr=0.1)
    beside, opt = schuss.EMA(base), schuss.Transformed(base, [tf.accumulate(2)])
    with beside.swap(), pytest.raises(RuntimeError, match=r"have other values inside swap\(\)"):
        opt.step(np.ones(2))
    assert not opt.step(np.ones(2)) and opt.step(np.ones(2))


def test_noise_of_each_call_and_place():
    """Before `accumulate` the mean has independent draws; two of them in a list draw other numbers."""

    def drawn(*transforms, calls=1):
        w = np.zeros(10_000)
        opt = schuss.Transformed(schuss.SGD(w, lr=1.0), transforms)
        for _ in range(calls):
            opt.step(np.zeros(10_000))
        return w

    one = drawn(tf.add_noise(1.0))
    mean = drawn(tf.add_noise(1.0), tf.accumulate(4), calls=4)
    assert abs(one.std() - 1.0) < 0.05 and abs(mean.std() - 0.5) < 0.03
    after = drawn(tf.accumulate(4), tf.add_noise(1.0), calls=4)
    assert abs(after.std() - 1.0) < 0.05 and not np.array_equal(after, one)
    assert abs(drawn(tf.add_noise(1.0), tf.add_noise(1.0)).std() - math.sqrt(2)) < 0.05


def test_a_factor_for_no_layer_is_refused():
    params = {"encoder": np.ones(2), "head": np.ones(2)}
    with refused(
        ValueError,
        "factors has 'encodr', but no array has it in its path (the first is ['encoder']); correct it or leave it out",
    ):
        tf.layer_lrs(params, {"encodr": 0.1}, lr=0.1)
