"""Slow weights in unusual circumstances: memory maps, interruptions, an optimizer that is changed from below."""

import numpy as np
import pytest
from helpers import assert_same, grads_of, params_of

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
