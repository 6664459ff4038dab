"""What each gradient transform computes: Optax's figures, equations, noise, where NaNs were; and wrong options."""

import copy
import json
import math

import numpy as np
import pytest
from helpers import DATA, DTYPES, assert_same, refused
from transform_cases import EACH, starts, waves

import schuss
from schuss import transforms as tf

CASES = [c for c in json.loads((DATA / "wider.json").read_text())["special"] if c["special"] == "transform"]
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


def number(x):
    return np.nan if x is None else float(x)


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


def test_wrong_options():
    for call, error, message in [
        (lambda: tf.agc(0.0), ValueError, "clipping must be a number > 0, got 0.0"),
        (lambda: tf.agc(layout="c"), ValueError, "layout must be 'in_out' or 'out_in', got 'c'"),
        (lambda: tf.clip(-1.0), ValueError, "max_delta must be a number >= 0, got -1.0"),
        (lambda: tf.clip_by_block_rms(0), ValueError, "threshold must be a number > 0, got 0"),
        (lambda: tf.clip_by_global_norm("1"), TypeError, "max_norm must be a number > 0, got '1'"),
        (lambda: tf.add_noise(1.0, seed=-1), ValueError, "seed must be a whole number >= 0 and < 2**64, got -1"),
        (lambda: tf.accumulate(0), ValueError, "k must be a whole number >= 1, got 0"),
        (lambda: tf.apply_if_finite(-1), ValueError, "max_consecutive_errors must be a whole number >= 0, got -1"),
    ]:  # fmt: skip
        with refused(error, message):
            call()
