"""Newton's method: one linear system over all parameters, its damping, and systems that cannot be solved."""

import numpy as np
import pytest
from families.newton import hessian
from helpers import F64, arrays, assert_close, assert_same, assert_unchanged, each_dtype, params_of, refused, snapshot

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
    """The gradient of the quadratic with the tests' Hessian and its minimum at TARGET."""
    return shaped(hessian(N) @ (flat(params) - TARGET))


@each_dtype
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("maximize", [False, True])
def test_one_step_to_the_minimum(dtype, order, maximize):
    """One step reaches the minimum of a quadratic from any start, with groups and any grad_scale."""
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
    """The closure returns gradient and Hessian at the current parameters; the iterates converge quadratically."""
    w = np.array([0.3])
    opt = schuss.Newton(w)
    for _ in range(5):  # the minimum of exp(w) - 2w
        assert opt.step(lambda: (np.exp(w) - 2, np.exp(w)[:, None]))
    assert_close([w], [[np.log(2)]], 1e-15)


def test_rates_of_groups():
    a, b = np.ones(2), np.ones(2)
    opt = schuss.Newton([{"params": a, "lr": 0.5}, {"params": b}])
    opt.step([a.copy(), b.copy()], np.eye(4))
    assert_same([a, b], [np.full(2, 0.5), np.zeros(2)])


def saddle(least):
    """A matrix with eigenvalues from `least` to 3; not for 0, where rounding could make it definite: see `singular`."""
    q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((N, N)))
    h = (q * np.linspace(least, 3, N)) @ q.T
    if least == 0:
        h[0] = h[:, 0] = 0
    return (h + h.T) / 2


def singular():
    """Semidefinite, with a pivot of exactly zero: its factor has small integers, so nothing is rounded."""
    lower = np.diag(1.0 + np.arange(N) % 2) + np.eye(N, k=-1)
    lower[13, 13] = 0
    return lower @ lower.T


@pytest.mark.parametrize("least", [-1e-9, -0.01, -2.0, 0.0])
@pytest.mark.parametrize("damping", [0.0, 1e-5])
def test_damping_grows_until_the_system_is_definite(least, damping):
    params = params_of(SHAPES)
    before, g = flat(params), np.linspace(1, 2, N)
    opt = schuss.Newton(params, damping=damping)
    h = saddle(least) if least else singular()
    kept = h.copy()
    opt.step(shaped(g), h)
    assert_same([h], [kept])
    used = opt.last_damping
    steps = np.log10(used / (damping or 1e-6 * abs(np.diag(h)).max()))
    assert damping <= used < 40 and used > -least - 1e-12
    assert abs(steps - round(steps)) < 1e-9 and used <= max(10 * -least, 2e-5)
    # A nearly singular system has no precise solution, so compare residuals.
    step = before - flat(params)
    np.testing.assert_allclose((h + used * np.eye(N)) @ step, g, rtol=1e-6, atol=1e-7 * max(1, abs(step).max()))
    opt.step(shaped(g), np.eye(N))
    assert opt.last_damping == damping, "last_damping is that of the last step"


@pytest.mark.parametrize("n", [N, 200])
def test_only_one_triangle_is_read(n):
    results = []
    for h in (np.triu(hessian(n)), hessian(n), np.tril(hessian(n))):
        w = np.zeros(n)
        schuss.Newton(w).step(np.linspace(-1, 1, n), h)
        results.append(w)
    assert sum(np.array_equal(w, results[1]) for w in results) == 2


def test_an_unaligned_hessian():
    params, want = params_of(SHAPES), params_of(SHAPES)
    unaligned = np.zeros(8 * N * N + 1, np.uint8)[1:].view(F64).reshape(N, N)
    unaligned[...] = hessian(N)
    for own, h in ((params, unaligned), (want, hessian(N))):
        schuss.Newton(own).step(gradient(own), h)
    assert_same(params, want)


def test_wrong_calls_change_nothing():
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
            "Newton needs the Hessian: step(..., hessian=...)",
        ),
        (
            lambda: opt.step(lambda: good), TypeError,
            "the closure must return the gradients and the Hessian, got list",
        ),
        (
            lambda: opt.step(lambda: (None, h)), TypeError,
            "grads is None; pass a structure like params, in which None leaves an array alone",
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
    opt = schuss.Newton(params, nonfinite="skip", max_grad_norm=1e9)
    before = snapshot(opt)[0]
    grads = gradient(params)
    grads[0][0, 0] = np.nan
    assert opt.step(grads, hessian(N), zero_grads=True) is False
    assert (opt.skipped_steps, opt.step_count) == (1, 0)
    assert np.isnan(opt.grad_norm) and opt.clip_factor is None
    assert not any(g.any() for g in grads)
    assert_same(arrays(opt), before)
    grads = gradient(params)
    assert opt.step(grads, hessian(N), zero_grads=True) is True and not any(g.any() for g in grads)


def test_a_gradient_that_becomes_read_only_meanwhile():
    w, g = np.ones(3), np.ones(3)

    def schedule(_step):
        g.flags.writeable = False
        return 1.0

    opt = schuss.Newton(w, lr=schedule)
    with pytest.raises(ValueError, match="made read-only meanwhile; nothing was changed"):
        opt.step(g, np.eye(3), zero_grads=True)
    assert opt.step_count == 0 and (w == 1.0).all() and (g == 1.0).all()


def test_no_parameters_at_all():
    opt = schuss.Newton([np.ones((0, 3)), np.ones(0)])
    assert opt.step([np.ones((0, 3)), np.ones(0)], np.ones((0, 0))) and opt.last_damping == 0.0


@pytest.mark.parametrize("n", [63, 64, 65, 128, 300, 700])
def test_large_systems(n):
    """Large systems are solved in blocks."""
    w, g, h = np.zeros(n), np.linspace(-1, 1, n), hessian(n) + np.eye(n)
    schuss.Newton(w).step(g, h)
    assert_close([w], [-np.linalg.solve(h, g)], 1e-13)


def test_a_large_nearly_singular_system():
    """The residual is that of substitution; products with the inverse of the factor would leave 1e-12."""
    n = 200
    root = np.tril(np.random.default_rng(2).standard_normal((n, n)) / 16, -1) + np.eye(n)
    root[:64, :64] = np.eye(64) - 0.3 * np.tril(np.ones((64, 64)), -1)  # its inverse grows like 1.3**n
    h, g = root @ root.T, root @ root.T @ np.ones(n)
    w = np.zeros(n)
    opt = schuss.Newton(w)
    opt.step(g, h)
    assert opt.last_damping == 0.0
    assert np.linalg.norm(h @ w + g) <= 1e-15 * np.linalg.norm(h) * np.linalg.norm(w)


@pytest.mark.parametrize("minor", [1, 2, 63, 64, 65, 128, 131, 200])
def test_the_error_names_the_minor_that_is_not_positive(minor):
    n = 200
    h = hessian(n).copy()
    h[minor - 1, minor - 1] = -1
    h[150, 150] -= 100  # later minors do not matter
    with refused(
        ValueError,
        f"hessian + damping*I is not positive definite (leading minor {min(minor, 151)}, damping 0): "
        'use fallback="damp", or more damping',
    ):
        schuss.Newton(np.ones(n), fallback="error").step(np.ones(n), h)


def test_extreme_hessians():
    w = np.ones(2)
    opt = schuss.Newton(w)
    # A millionth of the largest element underflows to zero here, but the damping grows from it.
    opt.step(np.ones(2), np.diag([1e-320, -1e-320]))
    assert opt.last_damping > 0
    assert_close([w], [np.full(2, 1 - 1 / opt.last_damping)], 1e-10)
    before = snapshot(opt)
    with refused(
        ValueError,
        "hessian + damping*I is not positive definite (leading minor 1, damping 0): is it the Hessian?",
    ):
        opt.step(np.ones(2), np.array([[1e308, 1.7e308], [1.7e308, 1e308]]))  # infinite with enough damping
    assert_unchanged(opt, before, "the refused step")


@pytest.mark.parametrize("function", ["cholesky", "inv"])
@pytest.mark.parametrize("call", [1, 4, 6])
def test_no_memory(monkeypatch, function, call):
    """A failed allocation anywhere in the solver raises MemoryError."""
    n = 400
    w = np.ones(n)
    opt = schuss.Newton(w)
    opt.step(np.ones(n), np.eye(n))
    before, original, calls = snapshot(opt), getattr(np.linalg, function), 0

    def fails(*args):
        nonlocal calls
        calls += 1
        if calls == call:
            raise MemoryError
        return original(*args)

    monkeypatch.setattr(np.linalg, function, fails)
    with pytest.raises(MemoryError):
        opt.step(np.ones(n), 2 * np.eye(n))
    assert_unchanged(opt, before, "the step that had no memory")
    assert opt.last_damping == 0.0
    assert opt.step(np.ones(n), 2 * np.eye(n)) is True


def test_rows_of_the_hessian_are_in_the_order_of_the_keys():
    """In the structure's own order, not in that of sorted keys."""
    target = {"w": np.array([1.0, 2.0, 3.0]), "b": np.array([-1.0])}
    params = {key: np.zeros_like(value) for key, value in target.items()}
    w, b = shaped(-hessian(4) @ flat(target.values()), [(3,), (1,)])
    schuss.Newton(params).step({"w": w, "b": b}, hessian(4))
    assert_close(list(params.values()), list(target.values()), 1e-12)
