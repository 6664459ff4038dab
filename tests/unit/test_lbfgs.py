"""LBFGS: PyTorch's figures with and without its line search, dtypes, resuming, closures that raise, wrong calls."""

import copy
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import DATA, DTYPES, Interrupted, assert_same, assert_unchanged, refused, snapshot
from ways_to_resume import each_way_to_resume, resumed

import schuss

CASES = [c for c in json.loads((DATA / "wider.json").read_text())["special"] if c["optimizer"] == "LBFGS"]
SHAPES = [(4, 3), (5,)]


def starts(dtype=np.float64, order="C"):
    made = ([math.cos(1.3 * (i + 1) + k) * 2.0 for i in range(math.prod(s))] for k, s in enumerate(SHAPES))
    return [np.reshape(values, s).astype(dtype, order=order) for values, s in zip(made, SHAPES, strict=True)]


def quartic(params):
    """The loss and gradients of data/make_wider.py."""
    params = [p.astype(np.float64) for p in params]
    total = sum(float(p.sum()) for p in params)
    loss, gradients = 0.1 * total * total, []
    for k, p in enumerate(params):
        w = np.reshape([10.0 ** ((i % 3) - 1) for i in range(p.size)], p.shape)
        d = p - np.reshape([math.sin(0.9 * (i + 1) + k) for i in range(p.size)], p.shape)
        loss += float((0.5 * w * d * d + 0.05 * d**4).sum())
        gradients.append(w * d + 0.2 * d**3 + 0.2 * total)
    return loss, gradients


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["kwargs"]))
def test_torch(case, order):
    """Parameters, losses and the number of evaluations after each of six steps."""
    params = starts(order=order)
    opt = schuss.LBFGS(params, **case["kwargs"])
    for t in range(6):
        loss = opt.step(lambda: quartic(params))
        assert loss == pytest.approx(case["loss_at_start_of_step"][t], rel=1e-10)
        assert opt.evaluations == case["func_evals"][t]
        for own, want, start in zip(params, case["params"][t], starts(), strict=True):
            far = np.max(np.abs(want - start.ravel()))
            assert np.max(np.abs(own.ravel() - want)) <= max(10 * (case["spec_error"] or 0), 1e-9) * far
    assert opt.step_count == 6


def textbook(params, steps, rate, most):
    """Without line search, the inverse Hessian as a matrix (Nocedal and Wright, equation 7.19)."""
    p, n = np.concatenate([x.ravel() for x in params]), sum(x.size for x in params)
    pairs, old, trail = [], None, []
    split = lambda v: [part.reshape(s) for part, s in zip(np.split(v, [12]), SHAPES, strict=True)]  # noqa: E731
    for k in range(steps):
        g = np.concatenate([x.ravel() for x in quartic(split(p))[1]])
        if old is not None:
            pairs = [*pairs, (p - old[0], g - old[1])][-most:]
        h = np.eye(n)
        if pairs:
            h *= (pairs[-1][0] @ pairs[-1][1]) / (pairs[-1][1] @ pairs[-1][1])
        for s, y in pairs:
            v = np.eye(n) - np.outer(y, s) / (y @ s)
            h = v.T @ h @ v + np.outer(s, s) / (y @ s)
        old = p.copy(), g
        p = p - rate * (min(1, 1 / np.abs(g).sum()) if k == 0 else 1.0) * (h @ g)
        trail.append(split(p))
    return trail


def test_equations():
    """One iteration a step is the textbook's, also once pairs are dropped."""
    params = starts()
    opt = schuss.LBFGS(params, lr=0.5, max_iter=1, history_size=3)
    for want in textbook(starts(), 12, 0.5, 3):
        opt.step(lambda: quartic(params))
        for own, exact in zip(params, want, strict=True):
            np.testing.assert_allclose(own, exact, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_dtypes(dtype):
    params = starts(dtype)
    opt = schuss.LBFGS(params, max_iter=30, line_search_fn="strong_wolfe")
    first = opt.step(lambda: quartic(params))
    assert first > 50 and quartic(params)[0] < {8: 1e-3, 4: 1e-3, 2: 0.5}[dtype.itemsize]
    assert opt.state_dict()["shared"]["s"].dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert [p.dtype for p in params] == [dtype] * 2


def test_a_schedule_and_maximize():
    params, twins = starts(), starts()
    opt = schuss.LBFGS(params, lr=lambda step: 0.1 * (step + 1), max_iter=3)
    twin = schuss.LBFGS(twins, maximize=True, max_iter=3)

    def negated():
        loss, gradients = quartic(twins)
        return -loss, [-g for g in gradients]

    for t in range(3):
        twin.param_groups[0]["lr"] = 0.1 * (t + 1)
        assert opt.step(lambda: quartic(params)) == -twin.step(negated)
    assert_same(params, twins)


def test_a_line_search_ends_with_max_eval():
    w = np.array([0.0])
    opt = schuss.LBFGS(w, max_iter=3, line_search_fn="strong_wolfe")  # so that max_eval is 3
    opt.step(lambda: (-float(w[0]), -np.ones(1)))
    # As PyTorch's: along a line each point is ten times as far as the one before.
    assert w[0] == 100 and opt.evaluations == 4


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@each_way_to_resume
def test_resume(how, search, tmp_path):
    def make(params):
        return schuss.LBFGS(params, lr=0.5, max_iter=3, history_size=4, line_search_fn=search)

    params = starts(np.float32)
    opt = make(params)
    for _ in range(3):
        opt.step(lambda: quartic(params))
    other = resumed(opt, how, lambda: make(copy.deepcopy(params)), tmp_path / "file")
    theirs = other._params
    for _ in range(2):
        assert opt.step(lambda: quartic(params)) == other.step(lambda: quartic(theirs))
    assert_unchanged(other, snapshot(opt))


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_a_closure_that_raises_leaves_everything(search):
    params = starts()
    opt = schuss.LBFGS(params, max_iter=4, history_size=2, line_search_fn=search)
    opt.step(lambda: quartic(params))
    before = snapshot(opt)
    for bad in range(4):
        results = [Interrupted] * (bad == 0) + [None] * bad

        def closure(results=results):
            if not results:
                raise Interrupted
            if results.pop() is Interrupted:
                raise Interrupted
            return quartic(params)

        with pytest.raises(Interrupted):
            opt.step(closure)
        assert_unchanged(opt, before)
    grads = iter([quartic(params), (1.0, [np.ones(3), np.ones(5)])])
    with pytest.raises(ValueError, match=r"^grads\[0\] has shape \(3,\)"):
        opt.step(lambda: next(grads))
    assert_unchanged(opt, before)
    opt.nonfinite = "error"
    with refused(FloatingPointError, "grads[1] has a NaN or infinity, first at (2,); nothing was updated"):
        opt.step(lambda: (1.0, [np.ones((4, 3)), np.array([1, 1, np.nan, 1, 1])]))
    assert_unchanged(opt, before)
    with pytest.raises(RuntimeError, match="in the middle of a step"):
        opt.step(lambda: (opt.step(lambda: quartic(params)), quartic(params)[1]))
    assert_unchanged(opt, before)


def test_gradients_may_be_the_parameters_or_one_buffer():
    w, v = np.array([3.0, -4.0]), np.array([3.0, -4.0])
    buffer = np.empty(2)

    def reused():
        buffer[:] = v
        return float(v @ v) / 2, buffer

    schuss.LBFGS(w, max_iter=3, lr=0.5).step(lambda: (float(w @ w) / 2, w))
    schuss.LBFGS(v, max_iter=3, lr=0.5).step(reused)
    assert_same([w], [v])


def test_wrong_calls():
    w = np.ones(2)
    opt = schuss.LBFGS(w)
    for call, error, message in [
        (lambda: opt.step(w), TypeError,
         "LBFGS needs a closure: opt.step(lambda: (loss, gradients at the present parameters))"),
        (lambda: opt.step(lambda: w), TypeError,
         "the closure must return the loss and the gradients, got ndarray of shape (2,)"),
        (lambda: opt.step(lambda: ("1", w)), TypeError, "the closure must return the loss as a number, got '1'"),
        (lambda: opt.step(lambda: (1.0, None)), TypeError,
         "grads is None; pass a structure like params, in which None leaves an array alone"),
        (lambda: schuss.LBFGS([w]).step(lambda: (1.0, [None])), TypeError,
         "grads[0] is None, but LBFGS has one vector of all arrays; leave out what is frozen"),
        (lambda: schuss.LBFGS([{"params": w}]), TypeError,
         "LBFGS takes one structure of arrays, no groups: all parameters are one vector"),
        (lambda: opt.add_param_group({"params": np.ones(2)}), TypeError,
         "LBFGS has one group: all parameters are one vector; make a new optimizer"),
        (lambda: schuss.LBFGS(w, max_iter=0), ValueError, "max_iter must be a whole number >= 1, got 0"),
        (lambda: schuss.LBFGS(w, line_search_fn="armijo"), ValueError,
         "line_search_fn must be 'strong_wolfe', got 'armijo'"),
        (lambda: schuss.LBFGS(w, max_grad_norm=1.0), ValueError,
         "LBFGS has no max_grad_norm; return clipped gradients from the closure"),
        (lambda: schuss.LBFGS(w, nonfinite="skip"), ValueError,
         'nonfinite must be "propagate" or "error" for LBFGS, got "skip"'),
        (lambda: opt.param_groups[0].update(history_size=5), ValueError,
         "history_size cannot change from 100 to 5: it is fixed when the optimizer is made; make a new "
         "optimizer with history_size=5"),
        (lambda: schuss.EMA(opt), TypeError, "EMA cannot wrap LBFGS, whose step is many updates"),
    ]:  # fmt: skip
        with refused(error, message):
            call()


BITS = """
import hashlib, numpy as np, schuss
print(schuss.cpu_level())
for dtype in (np.float32, np.float64):
    w = np.linspace(-1, 1, 100_001, dtype=dtype)
    curve = 1 + np.arange(w.size, dtype=dtype) % 7
    opt = schuss.LBFGS(w, max_iter=5, line_search_fn="strong_wolfe")
    opt.step(lambda: (float((curve * w * w).sum()), 2 * curve * w))
    print(hashlib.sha256(b"".join(a.tobytes() for a in [w, *opt.state_dict()["shared"].values()])).hexdigest())
"""


def test_same_bits():
    """At any CPU level, with any number of threads, also of NumPy's BLAS."""
    results = []
    for level, threads in [("baseline", "1"), *zip(schuss.cpu_levels(), "321", strict=False)]:
        env = os.environ | {"SCHUSS_CPU": level, "SCHUSS_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        run = [sys.executable, "-c", BITS]
        done = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
        used, *lines = done.stdout.splitlines()
        assert used == level
        results.append(lines)
    assert all(lines == results[0] for lines in results)


def test_a_start_where_the_loss_is_concave():
    """No pair is kept there; until there is one, steps are those along the gradient."""
    w = np.array([0.1, -0.1])
    opt = schuss.LBFGS(w, lr=0.5, max_iter=40)
    opt.step(lambda: (float((w**4 - w**2).sum()), 4 * w**3 - 2 * w))
    np.testing.assert_allclose(np.abs(w), np.sqrt(0.5), rtol=1e-4)


def test_a_change_between_the_search_and_its_end(monkeypatch):
    """As of another thread: the step is refused, which would undo it."""
    w, exclusive = np.ones(3), schuss.LBFGS._exclusive
    opt = schuss.LBFGS(w, lr=0.1)

    def late(self, *others):
        self.step_count = 5
        return exclusive(self, *others)

    monkeypatch.setattr(schuss.LBFGS, "_exclusive", late)
    with pytest.raises(RuntimeError, match="another thread changed this optimizer during its step"):
        opt.step(lambda: (float(w @ w), 2 * w))
    assert (w == 1).all() and opt.step_count == 5
