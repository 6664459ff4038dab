"""Adam-mini's second moments for pieces of an array, which the conformance table's shapes cannot have."""

import numpy as np
import pytest
from helpers import F32, F64, assert_close, grads_of, params_of, states
from reference import Reference

import schuss

SHAPES = [(8, 6), (12,), (4, 3, 5), (2, 50_000), (0,)]


@pytest.mark.parametrize(("dtype", "rtol"), [(F64, 1e-12), (F32, 2e-5)], ids=str)
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_pieces(blocks, dtype, rtol):
    shapes = [shape for shape in SHAPES if np.prod(shape) % blocks == 0]
    params = params_of(shapes, dtype)
    opt = schuss.AdamMini(params, lr=0.01, weight_decay=0.1, blocks=blocks)
    reference = Reference("AdamMini", params, lr=0.01, weight_decay=0.1, blocks=blocks)
    for t in range(1, 6):
        grads = grads_of(t, shapes, dtype)
        opt.step(grads)
        reference.step(grads)
    assert_close(params, reference.params, rtol)
    for i in range(len(shapes)):
        assert_close([states(opt)[0, "v", i]], [reference.state[i]["v"]], rtol)


def test_groups_have_blocks_of_their_own():
    """As a number of heads for some matrices, columns for others; a resumed optimizer has the same."""
    heads, other = np.ones((6, 4)), np.ones((3, 5))
    opt = schuss.AdamMini([{"params": heads, "blocks": 2}, {"params": other}], blocks="cols")
    opt.step([np.arange(24.0).reshape(6, 4), np.ones((3, 5))])
    assert [states(opt)[i, "v", 0].shape for i in range(2)] == [(2,), (1, 5)]
    again = schuss.AdamMini([{"params": heads.copy(), "blocks": 2}, {"params": other.copy()}], blocks="cols")
    again.load_state_dict(opt.state_dict())
    assert states(again)[0, "v", 0].tolist() == states(opt)[0, "v", 0].tolist()
