"""Streams of other libraries: whose a step runs in, what it waits for, and how long gradients must live."""

import ctypes
import gc
import sys
import weakref
from types import SimpleNamespace

import gpu
import numpy as np
import pytest
from gpu_pairs import assert_same, emulated, normal, pair, step_both

import schuss
from schuss._backends import cuda_gradients

pytestmark = emulated


def in_stream(monkeypatch, stream):
    """Arrays are made and used in this stream from now on."""
    monkeypatch.setattr("schuss._backends.cuda_arrays.current_stream", lambda framework, device: stream)


class Cupy(gpu.Array):
    """An array of CuPy, as far as its stream is concerned."""

    __module__ = "cupy"


@pytest.fixture
def cupy(monkeypatch):
    """CuPy's current stream of each device, in a list."""
    streams = [0x51, 0x52]
    monkeypatch.setitem(sys.modules, "cupy", gpu.cupy(streams))
    return streams


def test_the_stream_is_that_of_the_device_of_the_arrays(cupy):
    opt = schuss.SGD(Cupy(normal(4), device=1))
    opt.step(Cupy(normal(4), device=1))
    assert "launch stage0_elements 1 0x52" in gpu.log()


def test_a_stream_may_be_destroyed_after_a_step(monkeypatch):
    in_stream(monkeypatch, 0x61)
    here, there = pair(schuss.Prodigy, [normal(5000)], max_grad_norm=0.5)
    step_both(here, there, [normal(5000, seed=1)])
    gpu.EMULATOR.cuStreamDestroy_v2(ctypes.c_void_p(0x61))
    in_stream(monkeypatch, 0x62)
    assert there.grad_norm == here.grad_norm
    gpu.log()
    step_both(here, there, [normal(5000, seed=2)])
    assert "order 0x61 before 0x62" in gpu.log()
    gpu.EMULATOR.cuStreamDestroy_v2(ctypes.c_void_p(0x62))
    in_stream(monkeypatch, 0x63)
    assert there.state_dict()["shared"] == here.state_dict()["shared"]
    there.load_state_dict(there.state_dict())
    here.load_state_dict(here.state_dict())
    step_both(here, there, [normal(5000, seed=3)])
    assert_same(here, there)


def test_copies_are_waited_for_in_another_stream(monkeypatch):
    in_stream(monkeypatch, 0x71)
    opt = schuss.AdamW(gpu.Array(normal(4)))
    opt.step(gpu.Array(normal(4)))
    saved = opt.state_dict()
    opt.load_state_dict(saved)
    in_stream(monkeypatch, 0x72)
    gpu.log()
    opt.step(gpu.Array(normal(4)))
    lines = gpu.log()
    launch = next(i for i, line in enumerate(lines) if line.startswith("launch"))
    assert lines.index("order 0x71 before 0x72") < launch


def test_a_step_is_ordered_with_the_streams_of_the_parameters(cupy):
    others = gpu.Array(normal(4), stream=0x77)  # of a library without a current stream
    opt = schuss.SGD([Cupy(normal(4)), others])
    grads = [Cupy(normal(4)), Cupy(normal(4))]
    opt.step(grads)
    others.stream = 0x78
    gpu.log()
    opt.step(grads)
    lines = gpu.log()
    launch = next(i for i, line in enumerate(lines) if line.startswith("launch"))
    assert lines.index("order 0x78 before 0x51") < launch < lines.index("order 0x51 before 0x78")


def test_an_array_without_a_stream_is_not_waited_for(cupy):
    opt, grad = schuss.SGD(Cupy(normal(4))), gpu.Array(normal(4), stream=None)
    opt.step(grad)
    gpu.log()
    opt.step(grad)
    assert [line for line in gpu.log() if line.startswith("order")] == ["order 0x51 before 0x51"]


def test_gradients_live_until_the_step_has_run(monkeypatch):
    opt = schuss.SGD(gpu.Array(normal(4)))
    reached = [False]

    class Event:
        def __init__(self, device):
            pass

        def record(self, stream):
            pass

        def reached(self):
            return reached[0]

    native = SimpleNamespace(**{**vars(cuda_gradients._schuss), "CudaEvent": Event})
    monkeypatch.setattr(cuda_gradients, "_schuss", native)
    grad = gpu.Array(normal(4))
    alive = weakref.ref(grad)
    opt.step(grad)
    del grad
    opt.step(gpu.Array(normal(4)))
    gc.collect()
    assert alive() is not None
    reached[0] = True
    opt.step(gpu.Array(normal(4)))
    gc.collect()
    assert alive() is None


def test_a_stream_that_is_captured_is_refused():
    param, grad = gpu.Array(normal(4)), gpu.Array(normal(4))
    opt = schuss.SGD(param)
    opt.step(grad)
    before = param.host.tobytes()
    gpu.EMULATOR.emulator_capture(ctypes.c_void_p(1), True)
    try:
        with pytest.raises(RuntimeError, match=r"^the current stream is captured into a CUDA graph"):
            opt.step(grad)
    finally:
        gpu.EMULATOR.emulator_capture(ctypes.c_void_p(1), False)
    assert opt.step_count == 1 and param.host.tobytes() == before
    assert opt.step(grad)


# PyTorch and JAX, as far as they are asked.


class Tensor:
    """A tensor of PyTorch on a GPU that requires a gradient: it has no interface."""

    layout, is_cuda, device = "strided", True, SimpleNamespace(index=0)

    def __init__(self, values):
        self.array = gpu.Array(values)
        self.dtype, self.shape = f"torch.{values.dtype}", values.shape

    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")

    def data_ptr(self):
        return self.array.pointer

    def stride(self):
        return tuple(step // self.array.dtype.itemsize for step in self.array.host.strides)

    def is_inference(self):
        return False


def test_parameters_of_pytorch(monkeypatch):
    changed = []
    cuda = SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=0x81))
    graph = SimpleNamespace(increment_version=changed.extend)
    torch = SimpleNamespace(Tensor=Tensor, strided="strided", cuda=cuda, autograd=SimpleNamespace(graph=graph))
    monkeypatch.setitem(sys.modules, "torch", torch)
    value, grad = normal((3, 5)), normal((3, 5), seed=1)
    here, param = schuss.AdamW(value.copy()), Tensor(value)
    there = schuss.AdamW(param)
    assert here.step(grad.copy()) and changed == []
    assert there.step(Tensor(grad)) and "launch stage0_elements 1 0x81" in gpu.log()
    assert changed == [param], "PyTorch must refuse a backward pass through a graph of before"
    assert_same(here, there)


class Jax(gpu.Array):
    """An array of JAX: read-only to everybody, and known through DLPack."""

    __module__ = "jaxlib._jax"

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, stream):
        assert stream == 1
        memory = (ctypes.c_char * self.nbytes).from_address(self.pointer)
        return np.ndarray(self.shape, self.dtype, memory, order=self.order).__dlpack__()


def test_arrays_of_jax_are_gradients_only():
    with pytest.raises(TypeError, match=r"^params is an array of JAX, which cannot be changed in place; keep the "):
        schuss.SGD(Jax(normal(4)))
    value, grad = normal(4), normal(4, seed=1)
    here, there = pair(schuss.SGD, [value])
    assert here.step([grad.copy()]) and there.step([Jax(grad)])
    assert_same(here, there)
    with pytest.raises(ValueError, match=r"^grads\[0\] is read-only, so it cannot be zeroed; pass a copy$"):
        there.step([Jax(grad)], zero_grads=True)
