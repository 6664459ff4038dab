"""Nothing before or behind an array is read or written: each lies next to a page of memory that nobody may touch.

A test that fails ends its process.
"""

import ctypes
import mmap
import sys

import ml_dtypes
import numpy as np
import pytest
from helpers import build, each_optimizer

import schuss

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mprotect is called as Linux has it")

SHAPES = [(), (1,), (7,), (33,), (1025,), (0,), (3, 5), (17, 65), (1, 257), (300, 2), (2, 3, 4), (5, 1, 2, 9)]
DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
NONE, READ_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE


class Edges:
    """Makes arrays that begin behind such a page, or end before one; `open` ends the protection."""

    def __init__(self, at_start):
        self._at_start, self._pages = at_start, []

    def array(self, values):
        page, size = mmap.PAGESIZE, values.nbytes
        memory = np.frombuffer(mmap.mmap(-1, -(-size // page) * page + 2 * page), np.uint8)
        for place in (memory[:page], memory[-page:]):
            self._protect(place, NONE)
            self._pages.append(place)
        at = page if self._at_start else len(memory) - page - size
        made = memory[at : at + size].view(values.dtype).reshape(values.shape, order="F" if values.ndim % 2 else "C")
        made[...] = values
        return made

    def open(self):
        for place in self._pages:
            self._protect(place, READ_WRITE)

    @staticmethod
    def _protect(place, access):
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(place.ctypes.data), ctypes.c_size_t(len(place)), access) == 0


@pytest.fixture(params=[True, False], ids=["start", "end"])
def edges(request):
    made = Edges(request.param)
    yield made
    made.open()


def normal(shapes, dtype, seed):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


@each_optimizer
def test_steps(case, edges):
    if "NAG" in case.optimizer:
        pytest.skip("takes a closure")
    for dtype in DTYPES:
        for state_dtype in (None, "bfloat16", "int8"):
            for grad_dtype in (dtype, np.float64 if state_dtype else np.float32):
                params = [edges.array(values) for values in normal(SHAPES, dtype, 0)]
                try:
                    opt = build(case, params, state_dtype=state_dtype)
                except (TypeError, ValueError):
                    continue  # not every state can be small
                for t in range(2):
                    grads = [edges.array(values) for values in normal(SHAPES, grad_dtype, 1 + t)]
                    opt.step(grads, zero_grads=t == 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_averages_and_tools(edges, dtype):
    tables = [edges.array(values) for values in normal([(40, 7), (40, 64), (40, 1025)], dtype, 0)]
    values = [edges.array(values) for values in normal([(9, 7), (9, 64), (9, 1025)], dtype, 1)]
    indices = edges.array(np.array([39, 0, 3, 3, 38, 1, 39, 20, 0]))
    for options in ({}, {"state_dtype": "bfloat16"}, {"catch_up": True}):
        schuss.Adam(tables, **options).step_rows([(indices, one) for one in values])
    grads = [edges.array(values) for values in normal([(40, 7), (40, 64), (40, 1025)], dtype, 2)]
    opt = schuss.EMA(schuss.Lookahead(schuss.AdamW(tables, max_grad_norm=0.1), k=1))
    for _ in range(2):
        opt.step(grads)
    with opt.swap():
        schuss.gradients.clip_grad_norm_(grads, 0.01)
        schuss.gradients.clip_grad_value_(grads, 0.001)
    schuss.gradients.centralize_(grads)
    assert all(np.isfinite(np.asarray(one, np.float64)).all() for one in [*tables, *grads])
