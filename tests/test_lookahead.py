"""Slow weights in unusual circumstances: memory maps, interruptions, an optimizer that is changed from below."""

import copy

import numpy as np
import pytest
from helpers import Interrupted, assert_same, assert_unchanged, grads_of, params_of, snapshot

import schuss

SHAPES = [(5, 3), (33,)]


def mapped(folder, array):
    """A memory map with these numbers."""
    result = np.memmap(folder / f"{array.size}", array.dtype, "w+", shape=array.shape)
    result[...] = array
    return result


@pytest.mark.parametrize(
    "make",
    [
        lambda w: schuss.Lookahead(schuss.SGD(w, lr=0.1), k=1),
        lambda w: schuss.Lookahead(schuss.SGD(w, lr=0.1, momentum=0.9), k=2, pullback="pullback"),
        lambda w: schuss.Ranger(w, lr=0.1, k=2),
    ],
    ids=["Lookahead", "pullback", "Ranger"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_memory_maps(make, dtype, tmp_path):
    """As parameters and gradients they give the bits of plain arrays."""
    plain = params_of(SHAPES, dtype)
    maps = [mapped(tmp_path, w) for w in plain]
    opt, twin = make(maps), make(plain)
    for t in range(1, 5):
        grads = grads_of(t, SHAPES, dtype)
        opt.step([g.view(np.memmap) for g in grads])
        twin.step(grads)
    assert_same(maps, plain)


@pytest.mark.parametrize("then", ["step", "sync", "load_state_dict"])
@pytest.mark.parametrize("interrupted", [1, 2])
def test_an_interruption_behind_the_fast_step(then, interrupted, monkeypatch):
    """As Ctrl-C comes, when the call returns: the step counts, so its synchronization follows."""
    (w,), (x,) = params_of([(40,)]), params_of([(40,)])
    opt, twin = (schuss.Lookahead(schuss.SGD(p, lr=0.1, momentum=0.9), k=2) for p in (w, x))

    def step(grads):
        schuss.SGD.step(opt.optimizer, grads)
        raise Interrupted

    for t in range(1, interrupted + 1):
        twin.step(grads_of(t, [(40,)])[0])
        if t < interrupted:
            opt.step(grads_of(t, [(40,)])[0])
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(opt.optimizer, "step", step)
        opt.step(grads_of(interrupted, [(40,)])[0])
    if then == "load_state_dict":
        w[...] = x
        opt.load_state_dict(twin.state_dict())
    for o in (opt, twin):
        if then == "sync":
            o.sync()
        o.step(grads_of(3, [(40,)])[0])
    assert_unchanged(opt, snapshot(twin))


def test_a_failed_step_leaves_nothing_to_finish():
    w = np.ones(3)
    opt = schuss.Lookahead(schuss.SGD(w, lr=0.1), k=1)
    with pytest.raises(ValueError, match="shape"):
        opt.step(np.ones(2))
    opt.step(np.ones(3))
    assert_same([w], [np.full(3, 0.95)])


def test_the_state_of_many_arrays_is_not_read_for_each(tmp_path, monkeypatch):
    """Which would take a time that grows with the square of their number."""
    opt = schuss.Lookahead(schuss.SGD([np.ones(2) for _ in range(100)], momentum=0.9))
    state, reads, read = opt.state_dict(), [], schuss.Lookahead._states
    monkeypatch.setattr(schuss.Lookahead, "_states", property(lambda o: reads.append(o) or read.fget(o)))
    opt.load_state_dict(state)
    schuss.save(tmp_path / "file", opt)
    schuss.load(tmp_path / "file", opt)
    copy.deepcopy(opt)
    assert 0 < len(reads) < 20
