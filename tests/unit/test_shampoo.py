"""Shampoo beside its rows of the conformance table: roots, blocks, grafting, its state, bits."""

import copy
import itertools

import numpy as np
import pytest
from helpers import F32, arrays, assert_close, assert_same, assert_unchanged, snapshot

import schuss
from schuss._arrays import matrices


def normal(*shape, seed=0, dtype=F32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def test_the_first_step_is_orthogonal():
    """With one gradient in the statistics, the roots divide its singular values by themselves."""
    w = np.zeros((6, 6))
    schuss.Shampoo(w, lr=1.0, eps=1e-12).step(normal(6, 6, dtype=np.float64))
    assert_close([w @ w.T], [np.eye(6)], 1e-5)


def test_roots_are_those_of_the_statistics():
    opt = schuss.Shampoo({"w": normal(4, 6, dtype=np.float64), "b": normal(5, dtype=np.float64)}, eps=0.1)
    for t in range(3):
        opt.step({"w": normal(4, 6, seed=t, dtype=np.float64), "b": normal(5, seed=t, dtype=np.float64)})
    state = opt.state_dict()["state"][0]
    for side, name, power in [("left", "w", 4), ("right", "w", 4), ("left", "b", 2)]:
        statistics, root = state[side][name], state[f"{side}_root"][name]
        assert_same([root], [root.T])
        whole = np.linalg.matrix_power(root, power) @ (statistics + 0.1 * np.eye(len(root)))
        assert_close([whole], [np.eye(len(root))], 1e-10)
    assert state["right"]["b"] is None


def test_rotating_the_problem_rotates_the_steps():
    q, _ = np.linalg.qr(normal(6, 6, seed=5, dtype=np.float64))
    w = np.zeros((6, 6))
    other = w.copy()
    opt, twin = (schuss.Shampoo(p, lr=0.1, momentum=0.9) for p in (w, other))
    for t in range(8):
        gradient = normal(6, 6, seed=t, dtype=np.float64)
        opt.step(gradient)
        twin.step(q @ gradient)
    assert_close([other], [q @ w], 1e-6)


def test_blocks_are_arrays_of_their_own():
    """Without grafting, whose lengths are those of whole arrays."""
    w = normal(7, 5)
    places = [np.s_[rows, columns] for rows in (np.s_[:4], np.s_[4:]) for columns in (np.s_[:4], np.s_[4:])]
    parts = [w[place].copy() for place in places]
    opt, twin = schuss.Shampoo(w, max_preconditioner_dim=4), schuss.Shampoo(parts)
    for t in range(3):
        gradient = normal(7, 5, seed=t)
        opt.step(gradient)
        twin.step([gradient[place] for place in places])
    assert_close([w[place] for place in places], parts, 1e-5)
    assert opt.state_dict()["state"][0]["left"].shape == (2, 7, 4)


def test_a_long_side_without_blocks_has_no_preconditioner():
    w = np.zeros((3, 9))
    opt = schuss.Shampoo(w, lr=1.0, max_preconditioner_dim=8, blocking=False)
    gradient = normal(3, 9, dtype=np.float64)
    opt.step(gradient)
    u, _, v = np.linalg.svd(gradient, full_matrices=False)
    assert_close([w], [-u @ v], 1e-4)  # the other side takes the whole root
    assert set(opt.state_dict()["state"][0]) == {"left", "left_root"}


@pytest.mark.parametrize(
    ("grafting", "other"),
    [
        ("sgd", schuss.SGD),
        ("adagrad", lambda p, lr: schuss.Adagrad(p, lr=lr, eps=1e-8)),
        ("rmsprop", lambda p, lr: schuss.RMSprop(p, lr=lr, alpha=0.999, eps=1e-8)),
        ("adam", lambda p, lr: schuss.Adam(p, lr=lr, betas=(0.0, 0.999), eps=1e-8)),
    ],
)
def test_grafted_steps_have_the_length_of_the_other_method(grafting, other):
    w, twin = np.zeros((5, 4)), np.zeros((5, 4))
    opt = schuss.Shampoo(w, lr=0.1, grafting=grafting, start_preconditioning_step=3)
    method = other(twin, lr=0.1)
    for t in range(6):
        before, twin_before = w.copy(), twin.copy()
        gradient = normal(5, 4, seed=t, dtype=np.float64)
        opt.step(gradient)
        method.step(gradient)
        if t < 2:
            assert_close([w], [twin], 1e-12)
        step, other_step = w - before, twin - twin_before
        assert_close([np.linalg.norm(step)], [np.linalg.norm(other_step)], 1e-10)
        assert (np.max(abs(step - other_step)) > 1e-3) == (t >= 2)


def test_roots_are_computed_in_steps_that_the_frequency_divides():
    opt = schuss.Shampoo(normal(4, 4), update_freq=2)
    roots = []
    for t in range(6):
        opt.step(normal(4, 4, seed=t))
        roots.append(opt.state_dict()["state"][0]["left_root"].copy())
    assert not roots[0].any()
    assert [np.array_equal(*pair) for pair in itertools.pairwise(roots)] == [False, True, False, True, False]


def test_waiting_for_the_first_roots_moves_nothing():
    w = normal(4, 4)
    before = w.copy()
    opt = schuss.Shampoo(w, update_freq=2, before_first_root="wait")
    opt.step(normal(4, 4, seed=1))
    assert_same([w], [before])
    opt.step(normal(4, 4, seed=2))
    assert (w != before).all()


def test_convolutions_are_matrices_of_their_outputs():
    kernel, gradient = normal(4, 2, 3), normal(4, 2, 3, seed=1)
    flat = kernel.reshape(4, 6).copy()
    opt, twin = schuss.Shampoo(kernel, lr=0.1), schuss.Shampoo(flat, lr=0.1)
    for _ in range(3):
        opt.step(gradient)
        twin.step(gradient.reshape(4, 6))
    assert_same([kernel.reshape(4, 6)], [flat])


def test_the_order_in_memory_does_not_change_bits():
    results = []
    for order in "CF":
        w = np.array(normal(9, 6), order=order)
        opt = schuss.Shampoo(w, grafting="adam", max_preconditioner_dim=5)
        for t in range(3):
            opt.step(np.array(normal(9, 6, seed=t), order=order))
        results.append(np.ascontiguousarray(w))
    assert_close(results[:1], results[1:], 1e-6)


def test_our_threads_do_not_change_bits():
    results = []
    for threads in (1, 2, 5):
        before = schuss.get_num_threads()
        schuss.set_num_threads(threads)
        try:
            params = {"w": normal(150, 300), "b": normal(9)}
            opt = schuss.Shampoo(params, momentum=0.9, grafting="adam", max_preconditioner_dim=100)
            for t in range(3):
                opt.step({"w": normal(150, 300, seed=t), "b": normal(9, seed=t)})
        finally:
            schuss.set_num_threads(before)
        results.append(arrays(opt))
    for other in results[1:]:
        assert_same(results[0], other)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("taken", [0, 1])
def test_an_exception_between_products_changes_nothing(error, taken, monkeypatch):
    params = [normal(4, 6), normal(7), normal(6, 6)]
    opt = schuss.Shampoo(params, momentum=0.9, grafting="adam")
    grads = [normal(*p.shape, seed=1) for p in params]
    for _ in range(taken):
        opt.step(grads)
    before, calls = snapshot(opt), []

    def fails(matrix, *others):
        calls.append(others)
        if len(calls) == 4:
            raise error
        return np.eye(len(matrix), dtype=F32)

    with monkeypatch.context() as patch:
        patch.setattr(matrices, "inverse_root", fails)
        with pytest.raises(error):
            opt.step(grads)
    assert_unchanged(opt, before)
    twin = copy.deepcopy(opt)
    assert opt.step(grads) and twin.step(grads)
    assert_same(arrays(opt), arrays(twin))


def test_missing_gradients_leave_matrices_alone():
    params = [normal(4, 6), normal(5, 5)]
    alone = params[1].copy()
    opt, twin = schuss.Shampoo(params, update_freq=2), schuss.Shampoo(alone, update_freq=2)
    for t in range(6):
        gradient = normal(5, 5, seed=t)
        opt.step([normal(4, 6, seed=t), None if t in (0, 3) else gradient])
        if t not in (0, 3):
            twin.step(gradient)
    assert_same([params[1]], [alone])
