"""Optimizers over arrays on a GPU, except their arithmetic: accepted and rejected arrays, state, streams."""

import copy

import gpu
import ml_dtypes
import numpy as np
import pytest
from helpers import arrays

import schuss
from schuss import functional

BF16 = np.dtype(ml_dtypes.bfloat16)
emulated = pytest.mark.skipif(gpu.MODE != "emulator", reason="reads the emulator's log")


def some(shape, dtype=np.float32, seed=0, order="C"):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype), order=order)


def pair(kind, values, **kwargs):
    """The same optimizer on the host and on the GPU."""
    return (
        kind([v.copy("K") for v in values], **kwargs),
        kind([gpu.Array(v) for v in values], **kwargs),
    )


def step_both(here, there, grads, **options):
    assert here.step([g.copy("K") for g in grads], **options) == there.step([gpu.Array(g) for g in grads], **options)


def assert_same(here, there):
    for got, want in zip(arrays(there), arrays(here), strict=True):
        assert np.asarray(got).tobytes() == want.tobytes()


def test_it_is_the_same_class():
    opt = schuss.AdamW({"w": gpu.Array(some(3))})
    assert isinstance(opt, schuss.AdamW) and type(opt).__name__ == "AdamW"
    assert repr(opt).startswith("AdamW: step 0, 1 arrays, 3 elements (float32), state 24 bytes")
    assert opt.param_groups[0]["params"][0].owner.shape == (3,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BF16])
@pytest.mark.parametrize("offset", [0, 1])
def test_memory_that_begins_anywhere(dtype, offset):
    values = [some(n, dtype, n) for n in (1, 5, 16_384, 16_389, 40_000)]
    here = schuss.AdamW([v.copy() for v in values], max_grad_norm=1.0)
    there = schuss.AdamW([gpu.Array(v, offset=offset) for v in values], max_grad_norm=1.0)
    for t in range(3):
        grads = [some(v.shape, np.float32, t) for v in values]
        here.step(grads)
        there.step([gpu.Array(g, offset=1 - offset) for g in grads])
    assert_same(here, there)


@pytest.mark.parametrize("kind", [schuss.AdamW, schuss.LAMB, schuss.Ranger])
@pytest.mark.parametrize("order", ["C", "F"])
def test_orders(kind, order):
    values = [some((37, 1031), seed=1, order=order), some((5, 3), seed=2, order=order)]
    here, there = pair(kind, values)
    for t in range(7):
        step_both(here, there, [some(v.shape, np.float32, t, order) for v in values])
    assert_same(here, there)


def test_scaling_zeroing_and_groups():
    values = [some((30, 20)), some(7, np.float64)]
    grads = [some((30, 20), seed=1), some(7, np.float32, 2)]
    here = schuss.SGD([{"params": [values[0].copy()], "lr": 0.5}], lr=0.1, momentum=0.9)
    there = schuss.SGD([{"params": [gpu.Array(values[0])], "lr": 0.5}], lr=0.1, momentum=0.9)
    for opt, made in ((here, np.array), (there, gpu.Array)):
        opt.step([[made(grads[0])]])
        opt.add_param_group({"params": {"b": made(values[1])}, "weight_decay": 0.1})
        own = [[made(grads[0])], {"b": made(grads[1])}]
        assert opt.step(own, grad_scale=4.0, zero_grads=True)
        zeroed = [own[0][0], own[1]["b"]]
        assert not any(np.asarray(g if made is np.array else g.host).any() for g in zeroed)
    assert_same(here, there)
    assert there.step_count == 2 and there.skipped_steps == 0 and there.grad_norm is None


def test_own_gradient_buffers():
    there, here = schuss.SGD({"w": gpu.Array(np.ones(3, BF16))}), schuss.SGD({"w": np.ones(3, BF16)})
    there.grads["w"][...] = np.full(3, 2.0)
    here.grads["w"][...] = 2.0
    assert here.step(zero_grads=True) and there.step(zero_grads=True)
    assert_same(here, there)
    assert not there.grads["w"].numpy().any()
    there.grads["w"].fill(1.5)
    assert (np.asarray(there.grads["w"]) == 1.5).all()
    there.zero_grad()
    assert not there.grads["w"].numpy().any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_gradients_that_are_not_finite(bad, clip):
    values = [some(2000), some((40, 50))]
    grads = [some(2000, seed=3), some((40, 50), seed=4)]
    wrong = [grads[0], grads[1].copy()]
    wrong[1][30, 7] = wrong[1][35, 0] = bad
    here, there = pair(schuss.Adam, values, nonfinite="skip", max_grad_norm=clip)
    step_both(here, there, grads)
    norm = there.grad_norm
    step_both(here, there, wrong)
    assert there.skipped_steps == 1 and there.step_count == 1 and there.grad_norm == norm == here.grad_norm
    left = [gpu.Array(g) for g in wrong]
    assert there.step(left, zero_grads=True) is False and not any(g.host.any() for g in left)
    here.nonfinite = there.nonfinite = "error"
    for opt, made in ((here, np.array), (there, gpu.Array)):
        with pytest.raises(FloatingPointError, match=r"^grads\[1\] has a NaN or infinity, first at \(30, 7\)"):
            opt.step([made(g) for g in wrong])
    step_both(here, there, grads)
    assert_same(here, there)


def test_a_square_that_overflows_is_no_infinity():
    here, there = pair(schuss.SGD, [np.ones(3)], nonfinite="skip")
    step_both(here, there, [np.array([1e200, 1.0, 1.0])])
    assert there.step_count == 1


@pytest.mark.parametrize("large", [1e160, 1e-160, 1e307, np.inf])
def test_norms_of_squares_that_are_no_float64(large):
    values = [some(3000, np.float64), some(3000), some(5, np.float64)]
    grads = [some(3000, np.float64, 1) * large, some(3000, seed=2) * (large > 1), some(5, np.float64, 3) * large]
    for nonfinite in ("propagate", "skip"):
        here, there = pair(schuss.SGD, values, max_grad_norm=1.5, nonfinite=nonfinite)
        for scale in (1.0, 1e-3):
            step_both(here, there, [g * g.dtype.type(scale) for g in grads])
            assert repr(there.grad_norm) == repr(here.grad_norm)
        assert_same(here, there)


def test_state_moves_between_host_and_gpu(tmp_path):
    values = [some((20, 30), BF16), some(9, np.float64), some((4, 5, 6), order="F")]
    here, there = pair(schuss.Adam, values, amsgrad=True)
    for t in range(2):
        step_both(here, there, [some(v.shape, np.float32, t, "F" if v.ndim == 3 else "C") for v in values])
    other_here, other_there = pair(schuss.Adam, values, amsgrad=True)
    other_here.load_state_dict(there.state_dict())
    other_there.load_state_dict(here.state_dict())
    schuss.save(tmp_path / "here", here, include_params=True)
    schuss.save(tmp_path / "there", there, include_params=True)
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()
    schuss.load(tmp_path / "there", other_here, include_params=True)
    schuss.load(tmp_path / "here", other_there, include_params=True)
    grads = [some(v.shape, np.float32, 9, "F" if v.ndim == 3 else "C") for v in values]
    step_both(here, there, grads)
    step_both(other_here, other_there, grads)
    for opt in (there, other_here, other_there):
        assert_same(here, opt)


def test_initial_state():
    here, there = pair(schuss.Adagrad, [some(5), some(7, BF16)], initial_accumulator_value=0.5)
    assert_same(here, there)


@pytest.mark.parametrize("pullback", ["none", "reset", "pullback"])
def test_lookahead(pullback):
    values = [some((20, 30)), some(9, BF16), some(8, np.float64)]
    here, there = (schuss.Lookahead(opt, k=2, pullback=pullback) for opt in pair(schuss.SGD, values, momentum=0.9))
    for t in range(5):
        step_both(here, there, [some(v.shape, np.float32, t) for v in values])
    with here.evaluate(), there.evaluate():
        assert_same(here, there)
    assert_same(here, there)
    here.sync()
    there.sync()
    assert_same(here, there)


class Strided(gpu.Array):
    @property
    def __cuda_array_interface__(self):
        return super().__cuda_array_interface__ | dict(shape=(2, 2), strides=(16, 8))


class Masked(gpu.Array):
    @property
    def __cuda_array_interface__(self):
        return super().__cuda_array_interface__ | dict(mask=self)


class Lying(gpu.Array):
    """Says that memory of the host is on a GPU."""

    @property
    def __cuda_array_interface__(self):
        self.kept = np.zeros(self.shape, self.dtype)
        return super().__cuda_array_interface__ | dict(data=(self.kept.ctypes.data, False))


class Misaligned(gpu.Array):
    @property
    def __cuda_array_interface__(self):
        return super().__cuda_array_interface__ | dict(data=(self.pointer + 1, False), shape=(2,))


class Part(gpu.Array):
    """Some of another's memory."""

    def __init__(self, of, first, n):
        super().__init__(of.host[first : first + n])
        self.kept, self.pointer = of, of.pointer + 4 * first


def good(n=4):
    return gpu.Array(some(n))


WRONG_PARAMS = {
    "None": (lambda: [good(), None], TypeError, r"params\[1\] is None"),
    "an integer": (lambda: {"a": gpu.Array(np.arange(3))}, TypeError, r"params\['a'\] has dtype <i8; it must be"),
    "complex": (lambda: [gpu.Array(np.ones(3, np.complex64))], TypeError, r"params\[0\] has dtype <c8"),
    "read-only": (lambda: [gpu.Array(some(3), readonly=True)], ValueError, r"params\[0\] is read-only"),
    "strides": (lambda: Strided(some((4, 4))), ValueError, r"params is not contiguous"),
    "masked": (lambda: Masked(some(3)), TypeError, r"params is a masked array"),
    "on the host": (
        lambda: {"w": good(), "b": np.ones(3)}, ValueError, r"params\['b'\] is in host memory, but others are on a GPU",
    ),
    "unknown to the driver": (lambda: [Lying(some(3))], ValueError, r"params\[0\] says .* knows nothing of its memory"),
    "misaligned": (lambda: [Misaligned(some(3))], ValueError, r"params\[0\] is not aligned to its 4-byte elements"),
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
def test_two_devices():
    with pytest.raises(ValueError, match=r"^params\[1\] is on device 1, but params\[0\] is on device 0; all arrays"):
        schuss.SGD([good(), gpu.Array(some(3), device=1)])
    opt = schuss.SGD(gpu.Array(some(3), device=1))
    with pytest.raises(ValueError, match=r"^grads is on device 0, but params is on device 1"):
        opt.step(good(3))
    with pytest.raises(ValueError, match=r"^param_groups\[1\]\['params'\] is on device 0, but"):
        opt.add_param_group({"params": good()})
    assert opt.step(gpu.Array(some(3), device=1)) and len(opt.param_groups) == 1


WRONG_GRADS = {
    "None": (lambda o: [None, good(2)], {}, TypeError, r"grads\[0\] is None"),
    "on the host": (lambda o: [some(4), good(2)], {}, TypeError, r"grads\[0\] is ndarray of shape \(4,\) in host"),
    "a number": (lambda o: [good(), 1.0], {}, TypeError, r"grads\[1\] is float in host memory"),
    "shape": (lambda o: [good(), good(3)], {}, ValueError, r"grads\[1\] has shape \(3,\), but params\[1\] has"),
    "integers": (lambda o: [good(), gpu.Array(np.arange(2))], {}, TypeError, r"grads\[1\] has dtype <i8"),
    "too few": (lambda o: [good()], {}, ValueError, r"grads has 1 entries, but params has 2"),
    "no list": (lambda o: {"a": good()}, {}, TypeError, r"grads must be a list or tuple like params"),
    "a parameter": (
        lambda o: [o.param_groups[0]["params"][0], good(2)], {}, ValueError,
        r"grads\[0\] shares memory with a parameter",
    ),
    "read-only": (
        lambda o: [gpu.Array(some(4), readonly=True), good(2)], dict(zero_grads=True), ValueError,
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
    here, opt = pair(schuss.Adam, [some(4), some(2)])
    grads, options, error, message = WRONG_GRADS[case]
    with pytest.raises(error, match=f"^{message}"):
        opt.step(grads(opt), **options)
    assert opt.step_count == 0
    step_both(here, opt, [some(4), some(2)])
    assert_same(here, opt)


def test_a_gradient_in_another_order():
    opt = schuss.SGD(gpu.Array(some((3, 4))))
    with pytest.raises(ValueError, match=r"^grads does not lie in memory as params does, contiguous in C order"):
        opt.step(gpu.Array(some((3, 4), order="F")))


def test_what_works_on_the_host_only():
    for kind in (schuss.NAG, schuss.Newton):
        with pytest.raises(TypeError, match=rf"^{kind.__name__} works on NumPy arrays only"):
            kind(good())
    with pytest.raises(TypeError, match=r"^state_dtype and master_weights are for NumPy arrays"):
        schuss.Adam(good(), state_dtype="bfloat16")
    with pytest.raises(TypeError, match=r"^grads is on a GPU, but params is in host memory"):
        schuss.SGD(some(4)).step(good())
    with pytest.raises(TypeError, match=r"^p is on a GPU"):
        functional.sgd_(good(), good(), step=1, lr=0.1)
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        copy.deepcopy(schuss.SGD(good()))
    opt = schuss.SGD(some(4))
    with pytest.raises(TypeError, match=r"^param_groups\[1\]\['params'\] is on a GPU"):
        opt.add_param_group({"params": good()})


@pytest.mark.parametrize("kind", [schuss.Prodigy, schuss.NovoGrad, schuss.Adafactor])
def test_states_of_other_scopes_are_saved_and_loaded(kind, tmp_path):
    values = [some((3, 40)), some(5000, seed=1), some((2, 3, 70), seed=2, order="F"), some(0)]
    grads = [[some(v.shape, seed=t, order="F" if v.ndim == 3 else "C") for v in values] for t in range(6)]
    here, there = pair(kind, values)
    for own in grads[:3]:
        step_both(here, there, own)
    assert_same(here, there)
    schuss.save(tmp_path / "there", there)
    schuss.load(tmp_path / "there", here)
    fresh = kind([gpu.Array(p.numpy()) for p in there.param_groups[0]["params"]])
    fresh.load_state_dict(copy.deepcopy(here.state_dict()))
    for own in grads[3:]:
        step_both(here, there, own)
        fresh.step([gpu.Array(g) for g in own])
    assert_same(here, there)
    assert_same(here, fresh)


@pytest.mark.parametrize("kind", [schuss.Prodigy, schuss.NovoGrad, schuss.Adafactor])
def test_a_step_of_several_passes_that_is_skipped_changes_nothing(kind):
    values = [some((3, 40)), some(5000, seed=1)]
    here, there = pair(kind, values, nonfinite="skip")
    step_both(here, there, [some(v.shape, seed=7) for v in values])
    bad = [some(v.shape, seed=8) for v in values]
    bad[1][4097] = np.inf
    step_both(here, there, bad)
    assert there.skipped_steps == 1
    step_both(here, there, [some(v.shape, seed=9) for v in values])
    assert_same(here, there)


# Launches, streams and memory, as the driver sees them.


@emulated
def test_a_step_waits_for_nothing():
    opt = schuss.AdamW([gpu.Array(some(100, seed=i)) for i in range(1000)], max_grad_norm=1.0)
    grads = [gpu.Array(some(100, seed=i)) for i in range(1000)]
    opt.step(grads)
    gpu.log()
    opt.step(grads)
    assert gpu.log() == [
        "fill 8 0x1", "launch stage0_blocks 1000 0x1", "launch stage1_all 1 0x1",
        "launch stage0_elements 1000 0x1", "record 0x1",
    ]  # fmt: skip
    moved = [gpu.Array(some(100, seed=i)) for i in range(1000)]
    gpu.log()
    opt.step(moved)
    assert [line for line in gpu.log() if not line.startswith("pin")][:2] == ["copy 8000 to-device 0x1", "record 0x1"]


@emulated
def test_shared_states_stay_on_the_device():
    opt = schuss.Prodigy([gpu.Array(some(100))])
    grads = [gpu.Array(some(100, seed=1))]
    opt.step(grads)
    gpu.log()
    for _ in range(3):
        opt.step(grads)
    assert not any(line.startswith(("wait", "synchronize", "copy")) for line in gpu.log())
    first = opt.state_dict()["shared"]
    assert gpu.log()[:3] == ["wait 0x1", "copy 24 to-host 0x1", "synchronize 0x1"]
    opt.state_dict()
    assert not any(line.startswith(("wait", "copy 24")) for line in gpu.log())
    first["d_max"][...] = 0.5
    gpu.log()
    opt.step(grads)
    assert [line for line in gpu.log() if line.startswith("copy")] == ["copy 24 to-device 0x1"]
    assert opt.state_dict()["shared"]["d_max"] == 0.5


@emulated
def test_steps_in_a_row_that_nothing_waits_for():
    """With a lazy emulator all of them run at the end: what each one needs must still be there then."""
    values = [some(100, seed=i) for i in range(20)]
    here, there = pair(schuss.AdamW, values, max_grad_norm=1.0)
    grads = [[gpu.Array(some(100, seed=100 * t + i)) for i in range(20)] for t in range(5)]
    copies = [[g.host for g in own] for own in grads]
    for t in range(12):
        assert there.step(grads[t % 5])
        here.step(copies[t % 5])
    assert not any(line.startswith(("synchronize", "wait", "free")) for line in gpu.log()[-60:])
    assert_same(here, there)


@emulated
def test_launches_are_few_and_whole():
    big = schuss.LAMB(
        [{"params": [gpu.Array(some(50_000))]}, {"params": [gpu.Array(some(3)), gpu.Array(some(0))], "lr": 0.1}]
    )
    grads = [[gpu.Array(some(50_000))], [gpu.Array(some(3)), gpu.Array(some(0))]]
    big.step(grads)
    launches = [line.split()[1:3] for line in gpu.log() if line.startswith("launch")]
    assert launches == [
        ["stage0_blocks", "5"], ["stage1_all", "1"],  # the norm, then the step
        ["stage0_blocks", "4"], ["stage0_blocks", "1"], ["stage0_arrays", "1"], ["stage0_arrays", "1"],
        ["stage2_elements", "4"], ["stage2_elements", "1"],
    ]  # fmt: skip


@emulated
def test_the_producer_s_stream():
    opt = schuss.SGD(good())
    opt.step(good())
    grads = gpu.Array(some(4), stream=0x77)
    gpu.log()
    opt.step(grads)
    lines = gpu.log()
    launch = next(i for i, line in enumerate(lines) if line.startswith("launch"))
    assert lines.index("order 0x77 before 0x1") < launch < lines.index("order 0x1 before 0x77")
    assert not any(line.split()[0] in ("synchronize", "wait") for line in lines)


@emulated
def test_the_stream_of_the_parameters_library(monkeypatch):
    now = [0x51]
    monkeypatch.setattr("schuss._backends.cuda_arrays.current_stream", lambda framework, device: now[0])
    here, there = pair(schuss.Adam, [some(5000)])
    for t in range(4):
        step_both(here, there, [some(5000, seed=t)])
        now[0] ^= 3  # the next step is in another stream, and follows this one
    lines = gpu.log()
    assert sum(line.startswith("launch stage0_elements 1 0x5") for line in lines) == 4
    assert "order 0x51 before 0x52" in lines and "order 0x52 before 0x51" in lines
    assert_same(here, there)


@emulated
@pytest.mark.parametrize("name", ["alloc", "launch", "copy", "fill"])
def test_the_driver_s_errors_are_told(name):
    opt = schuss.SGD(good(), lr=0.3, max_grad_norm=1e9)
    schuss.SGD(good(), max_grad_norm=1e9).step(good())
    grads = good()
    gpu.fail(name)
    try:
        with pytest.raises(RuntimeError, match=r"CUDA_ERROR_OUT_OF_MEMORY \(out of memory\)"):
            opt.step(grads)
    finally:
        gpu.fail("")
    assert opt.step_count == 0 and opt.step(good())


@emulated
def test_what_frees_its_memory_waits_for_the_gpu():
    opt = schuss.SGD(good())
    opt.step(good())
    gpu.log()
    del opt
    assert next(line for line in gpu.log() if line.startswith(("free", "wait"))) == "wait 0x1"
