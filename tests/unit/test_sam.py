"""SAM and ASAM: around optimizers, in both forms, against the equations and recorded figures of pytorch_optimizer."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
from helpers import DATA, DTYPES, assert_same, assert_unchanged, refused, snapshot
from ways_to_resume import each_way_to_resume, resumed

import schuss

CASES = [c for c in json.loads((DATA / "wider.json").read_text())["special"] if c["optimizer"] == "SAM"]
RECORDED = [1, 2, 3, 5, 6, 10, 11, 25]
SHAPES = [(4, 3), (5,)]


def starts(dtype=np.float64):
    made = ([math.cos(1.3 * (i + 1) + k) * 2.0 for i in range(math.prod(s))] for k, s in enumerate(SHAPES))
    return [np.reshape(values, shape).astype(dtype) for values, shape in zip(made, SHAPES, strict=True)]


def gradients(params):
    """Those of data/make_wider.py's quartic."""
    total, result = sum(float(p.sum()) for p in params), []
    for k, p in enumerate(params):
        w = np.reshape([10.0 ** ((i % 3) - 1) for i in range(p.size)], p.shape)
        d = p - np.reshape([math.sin(0.9 * (i + 1) + k) for i in range(p.size)], p.shape)
        result.append(w * d + 0.2 * d**3 + 0.2 * total)
    return result


def ascended(params, rho, adaptive=False, eta=0.0, eps=1e-12):
    """From the paper."""
    grads = gradients(params)
    sizes = [np.abs(p) + eta if adaptive else np.ones_like(p) for p in params]
    norm = math.sqrt(sum(float(((s * g) ** 2).sum()) for s, g in zip(sizes, grads, strict=True)))
    return [p + rho * s * s * g / (norm + eps) for p, s, g in zip(params, sizes, grads, strict=True)]


@pytest.mark.parametrize("form", ["closure", "two steps"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["kwargs"]))
def test_recorded(case, form):
    kwargs, params = dict(case["kwargs"]), starts()
    opt = schuss.SAM(schuss.SGD(params, lr=0.02, momentum=kwargs.pop("momentum", 0.0)), **kwargs)
    recorded = dict(zip(RECORDED, case["params"], strict=True))
    for t in range(1, 26):
        if form == "closure":
            opt.step(lambda: gradients(params))
        else:
            opt.first_step(gradients(params))
            opt.second_step(gradients(params))
        for own, want, start in zip(params, recorded.get(t, []), starts(), strict=False):
            far, off = np.max(np.abs(want - start.ravel())), np.max(np.abs(own.ravel() - want))
            assert off <= max(10 * case["spec_error"], 1e-9) * far, f"step {t}"


OPTIONS = [{}, {"rho": 0.5, "adaptive": True}, {"rho": 0.5, "adaptive": True, "eta": 0.25}, {"rho": 2.0, "eps": 3.0}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_equations(options, dtype):
    """The closure's second call is at the ascended point, and the step is the optimizer's own from where they were."""
    params, twins = starts(dtype), starts(dtype)
    opt, twin = schuss.SAM(schuss.AdamW(params, lr=0.1), **options), schuss.AdamW(twins, lr=0.1)
    for _ in range(4):
        seen, before = [], copy.deepcopy(params)
        opt.step(lambda seen=seen: seen.append(copy.deepcopy(params)) or gradients(params))
        assert_same(seen[0], before)
        want = ascended([p.astype(np.float64) for p in before], **({"rho": 0.05} | options))
        tolerance = {8: 1e-12, 4: 1e-6, 2: 8e-3}[dtype.itemsize]
        for got, exact in zip(seen[1], want, strict=True):
            np.testing.assert_allclose(got.astype(np.float64), exact, rtol=tolerance, atol=tolerance)
        twin.step(gradients(seen[1]))
        assert_same(params, twins)


@pytest.mark.parametrize(
    "kind",
    [
        schuss.Prodigy,
        schuss.Adafactor,
        lambda params: schuss.AdamW(params, state_dtype="int8", max_grad_norm=1.0),
        lambda params: schuss.Lookahead(schuss.SGD(params, lr=0.1, momentum=0.5), k=2),
        lambda params: schuss.EMA(schuss.Lion(params, lr=0.01)),
    ],
    ids=["Prodigy", "Adafactor", "int8, clipped", "Lookahead", "EMA"],
)
def test_around_anything(kind):
    params, twins = starts(np.float32), starts(np.float32)
    opt, twin = schuss.SAM(kind(params)), kind(twins)
    for _ in range(5):
        opt.step(lambda: gradients(params))
        moved = copy.deepcopy(twins)
        ascent = schuss.SAM(schuss.SGD(moved))
        ascent.first_step(gradients(moved))
        twin.step(gradients(moved))
    assert_same(params, twins)
    outside, others = starts(np.float32), starts(np.float32)
    around, inside = schuss.EMA(schuss.SAM(schuss.SGD(outside, lr=0.1))), schuss.SAM(schuss.SGD(others, lr=0.1))
    around.step(lambda: gradients(outside))
    inside.step(lambda: gradients(others))
    assert_same(outside, others)
    assert_same(list(around.average), others)


def test_groups_scale_none_and_shared_gradients():
    """The norm is that of all groups; gradients may be the parameters themselves, and may be missing."""
    w, v = np.array([3.0]), np.array([-4.0])
    opt = schuss.SAM(schuss.SGD([{"params": w, "lr": 0.5}, {"params": v, "lr": 0.25}]), rho=1.0)
    seen = []
    opt.step(lambda: seen.append((w[0], v[0])) or [w * 8, v * 8], grad_scale=8.0)
    np.testing.assert_allclose(seen, [(3.0, -4.0), (3.6, -4.8)], rtol=1e-12)
    np.testing.assert_allclose([w[0], v[0]], [3.0 - 0.5 * 3.6, -4.0 + 0.25 * 4.8], rtol=1e-12)
    w, v = np.array([3.0]), np.array([-4.0])
    opt = schuss.SAM(schuss.SGD([w, v], lr=0.5), rho=1.0)
    opt.step(lambda: [w, None])
    assert (round(w[0], 9), v[0]) == (1.0, -4.0)
    x = np.array([1.0])
    schuss.SAM(schuss.SGD(x, lr=0.5, maximize=True), rho=0.5).step(lambda: x.copy())
    assert round(x[0], 9) == 1.25, "uphill, from the lower point"


@pytest.mark.parametrize("maximize", [False, True])
def test_a_distance_for_each_group(maximize):
    """The norm is that of all groups; each moves by its own distance along the one direction."""
    w, v, u = np.array([3.0]), np.array([-4.0, 0.0]), np.array([12.0])
    groups = [{"params": w}, {"params": [v, u]}]
    opt = schuss.SAM(schuss.SGD(groups, lr=0.5, maximize=maximize), rho=(1.3, 2.6))
    seen = []
    opt.step(lambda: seen.append(np.concatenate([w, v, u])) or [w, [v, u]])
    sign = -1.0 if maximize else 1.0
    np.testing.assert_allclose(seen[1], [3.0 + sign * 0.3, -4.0 - sign * 0.8, 0.0, 12.0 + sign * 2.4], rtol=1e-12)
    opt.rho = [0.0, 1.3]
    before = w.copy()
    opt.first_step([w, [None, u]])
    assert w == before and u != before
    opt.second_step([w, [None, u]])
    other = schuss.SAM(schuss.SGD(copy.deepcopy(groups), lr=0.5, maximize=maximize), rho=0.5)
    other.load_state_dict(json.loads(json.dumps(opt.state_dict(), default=np.ndarray.tolist)))
    assert other.rho == opt.rho == copy.deepcopy(opt).rho == (0.0, 1.3)
    opt.rho = 0.25
    assert opt.rho == 0.25


def test_as_many_distances_as_groups():
    def make(rho):
        return schuss.SAM(schuss.SGD([{"params": np.ones(2)}, {"params": np.ones(3)}], lr=0.1), rho=rho)

    message = "has 3 numbers, but the optimizer has 2 groups; give one number for all or one for each group"
    with refused(ValueError, f"rho {message}"):
        make([0.1, 0.2, 0.3])
    opt = make((0.1, 0.2))
    with refused(ValueError, f"rho {message}"):
        opt.rho = (1, 2, 3)
    with refused(ValueError, "rho[1] must be a number >= 0, got -2"):
        opt.rho = (1, -2)
    assert opt.rho == (0.1, 0.2)
    opt.add_param_group({"params": np.ones(1)})
    assert opt.rho == (0.1, 0.2, 0.2), "a group that is added gets the last one"
    pickle.loads(pickle.dumps(opt)).load_state_dict(opt.state_dict())
    opt.rho = (1, 2, 3)
    assert opt.step(lambda: [np.ones(2), np.ones(3), np.ones(1)])


def test_a_closure_that_raises_leaves_everything():
    params = starts()
    opt = schuss.SAM(schuss.AdamW(params, lr=0.1))
    opt.step(lambda: gradients(params))
    before = snapshot(opt)
    for bad in (0, 1):
        results = iter([gradients(params)] * bad)
        with pytest.raises(StopIteration):
            opt.step(lambda results=results: next(results))
        assert_unchanged(opt, before)
    grads = iter([gradients(params), [np.ones(3), np.ones(5)]])
    with pytest.raises(ValueError, match=r"^grads\[0\] has shape \(3,\)"):
        opt.step(lambda: next(grads))
    assert_unchanged(opt, before)


def test_between_the_steps():
    params = starts()
    opt = schuss.SAM(schuss.SGD(params, lr=0.1))
    before = snapshot(opt)
    opt.first_step(gradients(params))
    message = "the parameters are at SAM's ascended point; call second_step() first"
    for call in (
        lambda: opt.step(lambda: gradients(params)),
        lambda: opt.first_step(gradients(params)),
        lambda: opt.add_param_group({"params": np.ones(2)}),
        lambda: schuss.save("nowhere", opt),
    ):
        with refused(RuntimeError, message):
            call()
    with pytest.raises(ValueError, match=r"^grads has 1 entries"):
        opt.second_step([np.ones(2)])
    assert_unchanged(opt, before)
    with refused(RuntimeError, "the parameters are not at SAM's ascended point; call first_step(grads) first"):
        opt.second_step(gradients(params))
    dropped = schuss.SAM(schuss.SGD(params, lr=0.1))
    dropped.first_step(gradients(params))
    del dropped
    assert_same(params, before[0][: len(params)], "dropped in the middle")


@each_way_to_resume
def test_resume(how, tmp_path):
    def make(params):
        return schuss.SAM(schuss.AdamW(params, lr=0.1), rho=0.3, adaptive=True, eta=0.01)

    params = starts()
    opt = make(params)
    for _ in range(3):
        opt.step(lambda: gradients(params))
    other = resumed(opt, how, lambda: schuss.SAM(schuss.AdamW(copy.deepcopy(params), lr=0.1)), tmp_path / "file")
    assert (other.rho, opt.rho) == (0.3, 0.3)
    theirs = other._params
    opt.step(lambda: gradients(params))
    other.step(lambda: gradients(theirs))
    assert_unchanged(other, snapshot(opt))


def test_wrong_calls():
    w = np.ones(2)
    with refused(TypeError, "SAM wraps an optimizer, got ndarray of shape (2,)"):
        schuss.SAM(w)
    with refused(TypeError, "SAM wraps an optimizer whose step takes gradients, not NAG"):
        schuss.SAM(schuss.NAG(w))
    with refused(TypeError, "SAM wraps an optimizer whose step takes gradients, not SAM(SGD)"):
        schuss.SAM(schuss.SAM(schuss.SGD(w)))
    with refused(ValueError, "rho must be a number >= 0, got -1"):
        schuss.SAM(schuss.SGD(w), rho=-1)
    opt = schuss.SAM(schuss.SGD(w))
    with refused(TypeError, "SAM needs a closure: opt.step(lambda: the gradients at the present parameters)"):
        opt.step(w)
    with refused(TypeError, "grads is None; pass a structure like params, in which None leaves an array alone"):
        opt.step(lambda: None)
    opt = schuss.SAM(schuss.SGD([{"params": w, "maximize": True}, {"params": np.ones(2)}]))
    with refused(ValueError, "SAM needs the same maximize in all groups, since there is one direction for all of them"):
        opt.step(lambda: [w, w])


def test_first_gradients_that_are_not_finite():
    bad, good = np.array([[1.0, 2.0], [np.inf, 1.0]]), np.ones((2, 2))
    w = np.ones((2, 2), order="F")
    opt = schuss.SAM(schuss.SGD({"w": w}, lr=0.1, nonfinite="error"))
    before = snapshot(opt)
    message = "grads['w'] has a NaN or infinity, first at (1, 0); nothing was updated"
    with refused(FloatingPointError, message):
        opt.step(lambda: {"w": bad})
    with refused(FloatingPointError, message):
        opt.first_step({"w": bad})
    assert_unchanged(opt, before)
    opt = schuss.SAM(schuss.SGD({"w": w}, lr=0.1, nonfinite="skip"))
    calls = iter([bad, good])
    assert not opt.step(lambda: {"w": next(calls)})
    assert opt.skipped_steps == 1 and (w == 1.0).all() and next(calls) is good


@pytest.mark.parametrize("transform", [schuss.transforms.zero_nans(), schuss.transforms.accumulate(2)])
def test_a_step_is_skipped_also_where_a_wrapper_makes_gradients_finite(transform):
    w = np.ones(2)
    opt = schuss.SAM(schuss.Transformed(schuss.SGD(w, lr=0.1, nonfinite="skip"), [transform]))
    assert not opt.step(lambda: np.array([np.nan, 1.0]))
    assert (w == 1.0).all() and (opt.step_count, opt.skipped_steps) == (0, 1)
    assert all(np.isfinite(mean).all() for mean in opt.state_dict()["state"][0].values())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_bits(threads):
    before, n = schuss.get_num_threads(), 300_001
    g = np.sin(np.arange(n, dtype=np.float32))
    results = []
    try:
        for count in (1, threads):
            schuss.set_num_threads(count)
            w = np.linspace(-1, 1, n, dtype=np.float32)
            opt = schuss.SAM(schuss.SGD(w, lr=0.1), rho=0.5, adaptive=True)
            for _ in range(2):
                opt.step(lambda: g * w)  # noqa: B023
            results.append([w])
    finally:
        schuss.set_num_threads(before)
    assert_same(*results)


@pytest.mark.parametrize("between", [lambda opt: opt, lambda opt: schuss.Transformed(opt, [])])
def test_of_a_schedule_free_optimizer_for_evaluation_nothing_is_computed(between):
    w, calls = np.array([3.0, -4.0]), []
    inner = schuss.ScheduleFreeSGD(w, lr=0.5)
    opt = schuss.SAM(between(inner), rho=1.0)
    assert opt.step(w.copy)
    inner.eval()
    average = w.copy()
    for call in (lambda: opt.step(lambda: calls.append(1) or w.copy()), lambda: opt.first_step(w.copy())):
        with pytest.raises(RuntimeError, match=r"^the parameters are those for evaluation; call train\(\) before"):
            call()
        assert np.array_equal(w, average) and not calls
    inner.train()
    assert opt.step(w.copy)
