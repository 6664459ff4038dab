"""The calling thread's floating-point mode: a step has the same bits in any, and leaves it as it was."""

import ctypes
import mmap
import platform
import sys

import numpy as np
import pytest
from helpers import F32, F64, assert_same, build, each_optimizer, snapshot

import schuss

pytestmark = pytest.mark.usefixtures("two_threads")

LONG = 200_000  # elements: enough for several threads


STORE, LOAD = b"\x0f\xae\x1f\xc3", b"\x0f\xae\x17\xc3"  # stmxcsr [rdi]; ret, and ldmxcsr [rdi]; ret


@pytest.fixture
def flush_to_zero():
    """A function that makes this thread flush subnormals to zero, as libraries built with fast-math do."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        pytest.skip("needs machine code for x86-64 Linux")
    try:
        memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except PermissionError:
        pytest.skip("executable memory is not allowed")
    memory.write(STORE + LOAD)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    store, load = (ctypes.CFUNCTYPE(None, ctypes.c_void_p)(start + at) for at in (0, len(STORE)))
    mode = ctypes.c_uint32()
    store(ctypes.byref(mode))
    usual = mode.value

    def switch(on):
        load(ctypes.byref(ctypes.c_uint32(usual | 0x8040 if on else usual)))

    def is_on():
        store(ctypes.byref(mode))
        return mode.value & 0x8040 == 0x8040

    switch.is_on = is_on
    yield switch
    switch(False)


@pytest.mark.parametrize("size", [1000, LONG])
@pytest.mark.parametrize(
    ("dtype", "small", "smaller"), [(F32, 1e-38, 1e-42), (F64, 1e-307, 1e-160)], ids=["f32", "f64"]
)
@each_optimizer
def test_flush_to_zero(case, dtype, small, smaller, size, flush_to_zero):
    """The caller's mode does not affect results, and is restored afterwards."""
    results = []
    for on in (False, True):
        p, grad = np.full(size, small, dtype), np.full(size, smaller, dtype)
        p[::2] = np.finfo(dtype).smallest_subnormal
        opt = build(case, p, lr=0.5, max_grad_norm=smaller * 100)
        flush_to_zero(on)
        try:
            assert bool(p[0] * dtype.type(1) == 0) is on
            for _ in range(3):
                opt.step(grad)
            assert flush_to_zero.is_on() is on
        finally:
            flush_to_zero(False)
        results.append([*snapshot(opt)[0], np.array(opt.grad_norm)])
    assert_same(results[1], results[0])
    assert results[0][-1] > 0


@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_flush_to_zero_does_not_affect_the_gradient_factor(max_grad_norm, flush_to_zero):
    """The factor here is subnormal."""
    results = []
    for on in (False, True):
        p = np.zeros(2)
        opt = schuss.SGD(p, lr=1.0, max_grad_norm=max_grad_norm)
        flush_to_zero(on)
        try:
            opt.step(np.full(2, 1e150 if max_grad_norm else 1e308), grad_scale=1.5e308)
        finally:
            flush_to_zero(False)
        results.append(p)
    assert_same([results[1]], [results[0]])
    assert np.all(results[0] < 0)
