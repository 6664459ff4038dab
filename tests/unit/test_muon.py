"""Muon beside its rows of the conformance table: matrices of other shapes, what a step leaves alone, bits."""

import copy
import tracemalloc

import numpy as np
import pytest
from helpers import F32, arrays, assert_close, assert_same, assert_unchanged, refused, snapshot

import schuss
from schuss._arrays import matrices


def normal(*shape, seed=0, dtype=F32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (40, 40)])
def test_a_direction_is_nearly_orthogonal(shape):
    """Of a matrix without small singular values, all come near 1."""
    w = np.zeros(shape)
    u, _, v = np.linalg.svd(normal(*shape, dtype=np.float64), full_matrices=False)
    schuss.Muon(w, lr=1.0, weight_decay=0.0, adjust_lr_fn=None).step((u * np.linspace(0.5, 1, len(v))) @ v)
    values = np.linalg.svd(w, compute_uv=False)
    assert values.min() > 0.6 and values.max() < 1.3
    assert np.sum(w * (u @ v)) < 0  # it descends


@pytest.mark.parametrize(("layout", "rows"), [("out_in", (4, 30)), ("in_out", (24, 5))])
def test_convolutions_are_matrices_of_their_outputs(layout, rows):
    kernel, gradient = normal(4, 2, 3, 5), normal(4, 2, 3, 5, seed=1)
    flat = kernel.reshape(rows).copy()
    schuss.Muon(kernel, layout=layout).step(gradient)
    schuss.Muon(flat, layout=layout).step(gradient.reshape(rows))
    assert_same([kernel.reshape(rows)], [flat])


def test_layouts_are_transposes():
    w, gradient = normal(6, 9), normal(6, 9, seed=1)
    other = w.T.copy()
    schuss.Muon(w, adjust_lr_fn="spectral_unclamped").step(gradient)
    schuss.Muon(other, adjust_lr_fn="spectral_unclamped", layout="in_out").step(gradient.T)
    assert_close([w], [other.T], 1e-6)


def test_groups_may_fall_back_to_adamw():
    """Vectors always do; embeddings where a group says so."""
    options = dict(lr=0.01, weight_decay=0.1)
    embedding, bias, twin = normal(8, 3), normal(3), [normal(8, 3), normal(3)]
    groups = [{"params": {"w": normal(5, 4), "b": bias}}, {"params": embedding, "fallback": True}]
    opt, adamw = schuss.Muon(groups, **options), schuss.AdamW(twin, **options)
    for t in range(5):
        grads = [normal(8, 3, seed=t), normal(3, seed=t)]
        opt.step([{"w": normal(5, 4, seed=t), "b": grads[1]}, grads[0]])
        adamw.step(grads)
    assert_same([embedding, bias], twin)
    reason = "that needs other state arrays; make a new optimizer with fallback=True"
    with refused(ValueError, f"param_groups[0]: fallback cannot change from False to True: {reason}"):
        opt.param_groups[0]["fallback"] = True


def test_our_threads_do_not_change_bits():
    results = []
    for threads in (1, 2, 5):
        before = schuss.get_num_threads()
        schuss.set_num_threads(threads)
        try:
            opt = schuss.Muon({"w": normal(300, 700), "b": normal(9)})
            for t in range(3):
                opt.step({"w": normal(300, 700, seed=t), "b": normal(9, seed=t)})
        finally:
            schuss.set_num_threads(before)
        results.append(arrays(opt))
    for other in results[1:]:
        assert_same(results[0], other)


def test_missing_gradients_leave_matrices_alone():
    params = [normal(4, 6), normal(5, 3)]
    alone = params[1].copy()
    opt, twin = schuss.Muon(params, bias_correction=True), schuss.Muon(alone, bias_correction=True)
    for t in range(4):
        gradient = normal(5, 3, seed=t)
        before = params[1].copy()
        opt.step([normal(4, 6, seed=t), None if t == 1 else gradient])
        if t != 1:
            twin.step(gradient)
        else:
            assert_same([params[1]], [before])
    assert_same([params[1]], [alone])


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_exception_between_products_changes_nothing(error, monkeypatch):
    params = [normal(4, 6), normal(7), normal(6, 6)]
    opt = schuss.Muon(params)
    grads = [normal(*p.shape, seed=1) for p in params]
    opt.step(grads)
    before, calls = snapshot(opt), []

    def fails(array):
        calls.append(array)
        if len(calls) == 2:
            raise error
        return 1.0

    with monkeypatch.context() as patch:
        patch.setattr(matrices, "norm", fails)
        with pytest.raises(error):
            opt.step(grads)
    assert_unchanged(opt, before)
    twin = copy.deepcopy(opt)
    assert opt.step(grads) and twin.step(grads)
    assert_same(arrays(opt), arrays(twin))


def test_what_other_code_changes_meanwhile_is_found(monkeypatch):
    """Python runs between the products, so that a signal handler or another thread may make a parameter read-only."""
    w = normal(4, 6)
    opt = schuss.Muon(w)
    before = w.copy()

    def freezes(array):
        w.flags.writeable = False
        return 1.0

    monkeypatch.setattr(matrices, "norm", freezes)
    with pytest.raises(ValueError, match=r"^params was resized, re-pointed, retyped or made read-only"):
        opt.step(normal(4, 6, seed=1))
    w.flags.writeable = True
    assert opt.step_count == 0 and not opt.state_dict()["state"][0]["b"].any()
    assert_same([w], [before])


def test_scratch_is_no_state():
    opt = schuss.Muon([normal(4, 6), normal(3)])
    state = opt.state_dict()["state"][0]
    assert list(state) == ["b", "m", "v"] and [a is None for a in state["b"]] == [False, True]


def test_memory_of_products_is_freed():
    opt, gradient = schuss.Muon(normal(64, 96)), normal(64, 96, seed=1)
    opt.step(gradient)
    tracemalloc.start()
    try:
        opt.step(gradient)
        first = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            opt.step(gradient)
        assert tracemalloc.get_traced_memory()[0] - first < 5_000
    finally:
        tracemalloc.stop()
