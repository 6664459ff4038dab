"""Wrong calls with arrays on a GPU: each raises the right error, and changes nothing."""

import copy

import gpu
import numpy as np
import pytest
from gpu_pairs import assert_same, emulated, normal, pair, step_both

import schuss
from schuss import functional


class Strided(gpu.Array):
    @property
    def __cuda_array_interface__(self):
        return super().__cuda_array_interface__ | dict(shape=(2, 2), strides=(16, 8))


class Masked(gpu.Array):
    @property
    def __cuda_array_interface__(self):
        return super().__cuda_array_interface__ | dict(mask=self)


class Lying(gpu.Array):
    """Claims that host memory is on a GPU."""

    @property
    def __cuda_array_interface__(self):
        self.kept = np.zeros(self.shape, self.dtype)
        return super().__cuda_array_interface__ | dict(data=(self.kept.ctypes.data, False))


class Misaligned(gpu.Array):
    @property
    def __cuda_array_interface__(self):
        return super().__cuda_array_interface__ | dict(data=(self.pointer + 1, False), shape=(2,))


class Unreadable:
    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, stream):
        raise BufferError("no")


class Part(gpu.Array):
    """A slice of another array's memory."""

    def __init__(self, of, first, n):
        super().__init__(of.host[first : first + n])
        self.kept, self.pointer = of, of.pointer + 4 * first


def good(n=4):
    return gpu.Array(normal(n))


WRONG_PARAMS = {
    "None": (lambda: [None], ValueError, "params has no array"),
    "an integer": (lambda: {"a": gpu.Array(np.arange(3))}, TypeError, r"params\['a'\] has dtype <i8; it must be"),
    "complex": (lambda: [gpu.Array(np.ones(3, np.complex64))], TypeError, r"params\[0\] has dtype <c8"),
    "read-only": (lambda: [gpu.Array(normal(3), readonly=True)], ValueError, r"params\[0\] is read-only"),
    "strides": (lambda: Strided(normal((4, 4))), ValueError, r"params is not contiguous"),
    "masked": (lambda: Masked(normal(3)), TypeError, r"params is a masked array"),
    "on the host": (
        lambda: {"w": good(), "b": np.ones(3)}, ValueError, r"params\['b'\] is in host memory, but others are on a GPU",
    ),
    "unknown to the driver": (
        lambda: [Lying(normal(3))], ValueError, r"params\[0\] says .* knows nothing of its memory",
    ),
    "misaligned": (lambda: [Misaligned(normal(3))], ValueError, r"params\[0\] is not aligned to its 4-byte elements"),
    "unreadable": (
        lambda: [Unreadable()], TypeError, r"params\[0\] is an object of type Unreadable that cannot be read: no$",
    ),
    "twice": (lambda: [a := good(), a], ValueError, r"params\[1\] is the same memory as params\[0\]"),
    "overlap": (lambda: [a := good(), Part(a, 1, 2)], ValueError, r"params\[1\] overlaps the memory of params\[0\]"),
    "groups": (
        lambda: [{"params": [good()]}, {"params": {"b": np.ones(2)}}], ValueError,
        r"param_groups\[1\]\['params'\]\['b'\] is in host memory",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_PARAMS)
def test_wrong_parameters(case):
    params, error, message = WRONG_PARAMS[case]
    with pytest.raises(error, match=f"^{message}"):
        schuss.AdamW(params())


@emulated
def test_arrays_on_two_devices_are_refused():
    with pytest.raises(ValueError, match=r"^params\[1\] is on device 1, but params\[0\] is on device 0; all arrays"):
        schuss.SGD([good(), gpu.Array(normal(3), device=1)])
    opt = schuss.SGD(gpu.Array(normal(3), device=1))
    with pytest.raises(ValueError, match=r"^grads is on device 0, but params is on device 1"):
        opt.step(good(3))
    with pytest.raises(ValueError, match=r"^param_groups\[1\]\['params'\] is on device 0, but"):
        opt.add_param_group({"params": good()})
    assert opt.step(gpu.Array(normal(3), device=1)) and len(opt.param_groups) == 1


WRONG_GRADS = {
    "unknown": (lambda o: {"w": good()}, {"partial": True}, TypeError, "grads must be a list or tuple like params"),
    "on the host": (lambda o: [normal(4), good(2)], {}, TypeError, r"grads\[0\] is ndarray of shape \(4,\) in host"),
    "a number": (lambda o: [good(), 1.0], {}, TypeError, r"grads\[1\] is float in host memory"),
    "shape": (lambda o: [good(), good(3)], {}, ValueError, r"grads\[1\] has shape \(3,\), but params\[1\] has"),
    "integers": (lambda o: [good(), gpu.Array(np.arange(2))], {}, TypeError, r"grads\[1\] has dtype <i8"),
    "too few": (lambda o: [good()], {}, ValueError, r"grads has 1 entries, but params has 2"),
    "no list": (lambda o: {"a": good()}, {}, TypeError, r"grads must be a list or tuple like params"),
    "misaligned": (
        lambda o: [good(), Misaligned(normal(3))], {}, ValueError,
        r"grads\[1\] is not aligned to its 4-byte elements$",
    ),
    "unreadable": (
        lambda o: [Unreadable(), good(2)], {}, TypeError,
        r"grads\[0\] is an object of type Unreadable that cannot be read: no$",
    ),
    "a parameter": (
        lambda o: [o.param_groups[0]["params"][0], good(2)], {}, ValueError,
        r"grads\[0\] shares memory with a parameter",
    ),
    "read-only": (
        lambda o: [gpu.Array(normal(4), readonly=True), good(2)], dict(zero_grads=True), ValueError,
        r"grads\[0\] is read-only, so it cannot be zeroed",
    ),
    "shared": (
        lambda o: [a := good(), Part(a, 1, 2)], dict(zero_grads=True), ValueError,
        r"grads\[1\] shares memory with grads\[0\]; zero_grads",
    ),
    "scale": (lambda o: [good(), good(2)], dict(grad_scale=0), ValueError, r"grad_scale must be a finite number > 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_GRADS)
def test_wrong_gradients(case):
    here, opt = pair(schuss.Adam, [normal(4), normal(2)])
    grads, options, error, message = WRONG_GRADS[case]
    with pytest.raises(error, match=f"^{message}"):
        opt.step(grads(opt), **options)
    assert opt.step_count == 0
    step_both(here, opt, [normal(4), normal(2)])
    assert_same(here, opt)


def test_a_gradient_in_another_memory_order_is_refused():
    opt = schuss.SGD(gpu.Array(normal((3, 4))))
    with pytest.raises(ValueError, match=r"^grads does not lie in memory as params does, contiguous in C order"):
        opt.step(gpu.Array(normal((3, 4), order="F")))


def test_arrays_are_set_as_a_whole():
    opt = schuss.SGD(good())
    with pytest.raises(TypeError, match=r"^arrays on a GPU are set as a whole: array\[\.\.\.\] = values$"):
        opt.grads[0] = 1.0
    opt.grads[...] = np.arange(4.0)
    assert opt.grads.numpy().tolist() == [0, 1, 2, 3]


def test_features_that_work_on_the_host_only():
    for kind in (schuss.NAG, schuss.Newton, schuss.Muon, schuss.SOAP, schuss.Shampoo):
        with pytest.raises(TypeError, match=rf"^{kind.__name__} works on NumPy arrays only"):
            kind(good())
    with pytest.raises(TypeError, match=r"^state_dtype and master_weights are for NumPy arrays"):
        schuss.Adam(good(), state_dtype="bfloat16")
    with pytest.raises(TypeError, match=r"^grads is on a GPU, but params is in host memory"):
        schuss.SGD(normal(4)).step(good())
    with pytest.raises(TypeError, match=r"^p is on a GPU"):
        functional.sgd_(good(), good(), step=1, lr=0.1)
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        copy.deepcopy(schuss.SGD(good()))
    opt = schuss.SGD(normal(4))
    with pytest.raises(TypeError, match=r"^param_groups\[1\]\['params'\] is on a GPU"):
        opt.add_param_group({"params": good()})
