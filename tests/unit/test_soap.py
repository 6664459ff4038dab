"""SOAP beside its rows of the conformance table: what it rotates, its state, bits."""

import copy

import numpy as np
import pytest
from helpers import F32, arrays, assert_close, assert_same, assert_unchanged, snapshot

import schuss
from schuss._arrays import matrices


def normal(*shape, seed=0, dtype=F32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def test_the_first_step_moves_nothing():
    w = normal(5, 4)
    before = w.copy()
    opt = schuss.SOAP(w, weight_decay=0.5)
    assert opt.step(normal(5, 4, seed=1)) and opt.step_count == 1
    assert_same([w], [before])
    opt.step(normal(5, 4, seed=2))
    assert (w != before).all()


def test_bases_are_orthogonal_and_diagonalize_the_statistics():
    opt = schuss.SOAP(normal(6, 6, dtype=np.float64), precondition_frequency=1)
    for _ in range(60):
        opt.step(normal(6, 6, seed=3, dtype=np.float64))  # statistics that stay the same but for a factor
    state = opt.state_dict()["state"][0]
    for side in ("left", "right"):
        basis, statistics = state[f"{side}_basis"], state[side]
        assert_close([basis.T @ basis], [np.eye(6)], 1e-12)
        rotated = basis.T @ statistics @ basis
        assert_close([rotated - np.diag(np.diag(rotated))], [np.zeros((6, 6))], 1e-9)


def test_rotating_the_problem_rotates_the_steps():
    """In an eigenbasis the coordinates do not matter, as they do for Adam."""
    rng = np.random.default_rng(5)
    q, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    w = np.zeros((6, 6))
    other = q @ w
    opt, twin = (schuss.SOAP(p, lr=0.1, weight_decay=0.0, precondition_frequency=2) for p in (w, other))
    for _ in range(8):
        gradient = rng.standard_normal((6, 6))
        opt.step(gradient)
        twin.step(q @ gradient)
    assert_close([other], [q @ w], 1e-9)


def test_convolutions_are_matrices_of_their_outputs():
    kernel, gradient = normal(4, 2, 3), normal(4, 2, 3, seed=1)
    flat = kernel.reshape(4, 6).copy()
    opt, twin = schuss.SOAP(kernel, lr=0.1), schuss.SOAP(flat, lr=0.1)
    for _ in range(3):
        opt.step(gradient)
        twin.step(gradient.reshape(4, 6))
    assert_same([kernel.reshape(4, 6)], [flat])
    assert opt.state_dict()["state"][0]["right"].shape == (6, 6)


def test_vectors_take_steps_of_adam_one_step_later():
    """With Adam's own correction of the bias, which does not count the first gradient."""
    vector = normal(9)
    twin = vector.copy()
    opt, adam = schuss.SOAP(vector, weight_decay=0.0), schuss.Adam(twin, lr=3e-3, betas=(0.95, 0.95), eps=1e-12)
    opt.param_groups[0]["eps"] = 1e-12
    for t in range(6):
        opt.step(normal(9, seed=t))
        if t > 0:
            adam.step(normal(9, seed=t))
    assert_close([vector], [twin], 1e-6)


def test_our_threads_do_not_change_bits():
    results = []
    for threads in (1, 2, 5):
        before = schuss.get_num_threads()
        schuss.set_num_threads(threads)
        try:
            opt = schuss.SOAP({"w": normal(150, 300), "b": normal(9)}, precondition_frequency=2)
            for t in range(4):
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
    opt = schuss.SOAP(params, precondition_frequency=1)
    grads = [normal(*p.shape, seed=1) for p in params]
    for _ in range(taken):
        opt.step(grads)
    before, calls = snapshot(opt), []

    def fails(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise error
        return np.eye(len(arguments[0]), dtype=F32)

    with monkeypatch.context() as patch:
        patch.setattr(matrices, "refined" if taken else "eigenvectors", fails)
        with pytest.raises(error):
            opt.step(grads)
    assert_unchanged(opt, before)
    twin = copy.deepcopy(opt)
    assert opt.step(grads) and twin.step(grads)
    assert_same(arrays(opt), arrays(twin))


def test_missing_gradients_leave_matrices_alone():
    params = [normal(4, 6), normal(5, 5)]
    alone = params[1].copy()
    opt, twin = schuss.SOAP(params, precondition_frequency=2), schuss.SOAP(alone, precondition_frequency=2)
    for t in range(6):
        gradient = normal(5, 5, seed=t)
        opt.step([normal(4, 6, seed=t), None if t in (0, 3) else gradient])
        if t not in (0, 3):
            twin.step(gradient)
    assert_same([params[1]], [alone])
