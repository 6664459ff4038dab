"""Newton's method: one system over all parameters, its damping, and what to do when it cannot be solved."""

import numpy as np
import pytest
from helpers import F64, arrays, assert_close, assert_same, assert_unchanged, each_dtype, params_of, refused, snapshot
from reference import hessian

import schuss

SHAPES = [(5, 3), (7,), (), (0,), (2, 2)]
N = 27
TARGET = np.linspace(-2, 2, N)


def flat(params):
    return np.concatenate([p.ravel().astype(F64) for p in params])


def shaped(vector, shapes=SHAPES):
    parts = np.split(vector, np.cumsum([int(np.prod(s)) for s in shapes])[:-1])
    return [part.reshape(s) for part, s in zip(parts, shapes, strict=True)]


def gradient(params):
    """Of the quadratic with the tests' Hessian and its minimum at TARGET."""
    return shaped(hessian(N) @ (flat(params) - TARGET))


@each_dtype
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("maximize", [False, True])
def test_one_step_to_the_minimum(dtype, order, maximize):
    """Of a quadratic, wherever it starts, in groups and with any scale of the loss; to the precision of the dtype."""
    params = [np.asarray(p, order=order) for p in params_of(SHAPES, dtype)]
    opt = schuss.Newton([{"params": params[:2]}, {"params": {"rest": params[2:]}}], maximize=maximize)
    sign = -1 if maximize else 1
    grads = [np.asarray(8 * sign * g, order=order) for g in gradient(params)]
    assert opt.last_damping is None
    assert opt.step([grads[:2], {"rest": grads[2:]}], 8 * sign * hessian(N), grad_scale=8.0) is True
    eps = 1e-15 if dtype == F64 else {2: 1e-3 if dtype == np.float16 else 8e-3, 4: 1e-7}[dtype.itemsize]
    assert_close([flat(params)], [TARGET], 20 * eps)
    assert opt.last_damping == 0.0 and opt.step_count == 1


def test_closure():
    """It returns both, at the present parameters; Newton's iterates converge quadratically."""
    w = np.array([0.3])
    opt = schuss.Newton(w)
    for _ in range(5):  # towards the minimum of exp(w) - 2w
        assert opt.step(lambda: (np.exp(w) - 2, np.exp(w)[:, None]))
    assert_close([w], [[np.log(2)]], 1e-15)


def test_rates_of_groups():
    a, b = np.ones(2), np.ones(2)
    opt = schuss.Newton([{"params": a, "lr": 0.5}, {"params": b}])
    opt.step([a.copy(), b.copy()], np.eye(4))
    assert_same([a, b], [np.full(2, 0.5), np.zeros(2)])


def saddle(least):
    """Eigenvalues from `least` to 3; a zero is one to the bit, since rounding may make any other definite."""
    q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((N, N)))
    h = (q * np.linspace(least, 3, N)) @ q.T
    if least == 0:
        h[0] = h[:, 0] = 0
    return (h + h.T) / 2


@pytest.mark.parametrize("least", [-1e-9, -0.01, -2.0, 0.0])
@pytest.mark.parametrize("damping", [0.0, 1e-5])
def test_damping_grows_until_it_is_enough(least, damping):
    params = params_of(SHAPES)
    before, g = flat(params), np.linspace(1, 2, N)
    opt = schuss.Newton(params, damping=damping)
    h = saddle(least)
    kept = h.copy()
    opt.step(shaped(g), h)
    assert_same([h], [kept])
    used = opt.last_damping
    steps = np.log10(used / (damping or 1e-6 * abs(np.diag(h)).max()))
    assert damping <= used < 40 and used > -least - 1e-12
    assert abs(steps - round(steps)) < 1e-9 and used <= max(10 * -least, 2e-5)
    # A system that is hardly definite has no precise solution: compare what it solves.
    step = before - flat(params)
    np.testing.assert_allclose((h + used * np.eye(N)) @ step, g, rtol=1e-6, atol=1e-7 * max(1, abs(step).max()))
    opt.step(shaped(g), np.eye(N))
    assert opt.last_damping == damping, "of the last step"


def test_one_triangle_is_enough():
    params, want = params_of(SHAPES), params_of(SHAPES)
    results = []
    for own, h in ((params, np.triu(hessian(N))), (want, hessian(N)), (params_of(SHAPES), np.tril(hessian(N)))):
        schuss.Newton(own).step(gradient(own), h)
        results.append(flat(own))
    assert sum(np.array_equal(r, results[1]) for r in results) == 2


def test_a_hessian_that_is_not_aligned():
    params, want = params_of(SHAPES), params_of(SHAPES)
    unaligned = np.zeros(8 * N * N + 1, np.uint8)[1:].view(F64).reshape(N, N)
    unaligned[...] = hessian(N)
    for own, h in ((params, unaligned), (want, hessian(N))):
        schuss.Newton(own).step(gradient(own), h)
    assert_same(params, want)


def test_what_a_step_refuses():
    params = params_of(SHAPES)
    opt = schuss.Newton(params, fallback="error", damping=0.25, nonfinite="error", max_grad_norm=10.0)
    opt.step(gradient(params), hessian(N))
    norm, before = opt.grad_norm, snapshot(opt)
    good, h = gradient(params), hessian(N)
    bad = [g.copy() for g in good]
    bad[4][1, 0] = np.inf
    indefinite = np.diag([1.0] * 10 + [-0.5] + [1.0] * (N - 11))
    broken = h.copy()
    broken[3, 3] = np.nan
    groups = schuss.Newton([{"params": np.ones(2)}, {"params": np.ones(2), "damping": 1.0}])
    for call, error, message in [
        (
            lambda: opt.step(good), TypeError,
            "Newton needs the Hessian: opt.step(grads, hessian), or a closure that returns both",
        ),
        (
            lambda: opt.step(lambda: good), TypeError,
            "the closure must return the gradients and the Hessian, got list",
        ),
        (
            lambda: opt.step(lambda: (None, h)), TypeError,
            "grads must be a list or tuple like params, got NoneType",
        ),
        (
            lambda: opt.step(good, h[:-1]), ValueError,
            f"hessian has shape (26, 27), but there are {N} parameters: it must be ({N}, {N})",
        ),
        (lambda: opt.step(good, h + 0j), TypeError, "hessian has dtype complex128; it must be real numbers"),
        (lambda: opt.step(good, broken), ValueError, "hessian has a NaN or infinity; nothing was updated"),
        (
            lambda: opt.step(good, indefinite, zero_grads=True), ValueError,
            "hessian + damping*I is not positive definite (leading minor 11, damping 0.25): "
            'use fallback="damp", or more damping',
        ),
        (
            lambda: opt.step(bad, h), FloatingPointError,
            "grads[4] has a NaN or infinity, first at (1, 0); nothing was updated",
        ),
        (lambda: opt.step(good[:-1], h), ValueError, "grads has 4 entries, but params has 5"),
        (
            lambda: opt.step(good, h, grad_scale=0.0), ValueError,
            "grad_scale must be a finite number > 0 whose inverse is finite in float32, got 0.0",
        ),
        (
            lambda: groups.step([np.ones(2)] * 2, np.eye(4)), ValueError,
            "all groups must have the same damping, since there is one system to solve",
        ),
        (
            lambda: groups.step(np.ones(4), np.eye(4)), ValueError,
            "grads must be a list with an entry for each group, 2 in all, got ndarray of shape (4,)",
        ),
        (lambda: schuss.Newton(np.ones(3), damping=-1.0), ValueError, "damping must be a number >= 0, got -1.0"),
        (
            lambda: schuss.Newton(np.ones(3), fallback="raise"), ValueError,
            "fallback must be 'damp' or 'error', got 'raise'",
        ),
    ]:  # fmt: skip
        with refused(error, message):
            call()
        assert_unchanged(opt, before, message)
        assert (opt.last_damping, opt.grad_norm) == (0.25, norm)
        assert_same(good, gradient(params))


def test_skipped_steps_and_zeroed_gradients():
    params = params_of(SHAPES)
    opt = schuss.Newton(params, nonfinite="skip")
    before = snapshot(opt)[0]
    grads = gradient(params)
    grads[0][0, 0] = np.nan
    assert opt.step(grads, hessian(N), zero_grads=True) is False
    assert (opt.skipped_steps, opt.step_count) == (1, 0)
    assert not any(g.any() for g in grads)
    assert_same(arrays(opt), before)
    grads = gradient(params)
    assert opt.step(grads, hessian(N), zero_grads=True) is True and not any(g.any() for g in grads)


def test_no_parameters_at_all():
    opt = schuss.Newton([np.ones((0, 3)), np.ones(0)])
    assert opt.step([np.ones((0, 3)), np.ones(0)], np.ones((0, 0))) and opt.last_damping == 0.0


@pytest.mark.parametrize("n", [300, 700])
def test_large_systems(n):
    """Against LAPACK's solution, with one thread and with several: close, if not bit for bit."""
    threads = schuss.get_num_threads()
    g, h = np.linspace(-1, 1, n), hessian(n) + np.eye(n)
    for count in (1, 2):
        schuss.set_num_threads(count)
        w = np.zeros(n)
        schuss.Newton(w).step(g, h)
        assert_close([w], [-np.linalg.solve(h, g)], 1e-13)
    schuss.set_num_threads(threads)
