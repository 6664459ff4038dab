"""Offload: its results are those of master weights on the host, and copies overlap with computation."""

import ctypes

import gpu
import ml_dtypes
import numpy as np
import pytest
from gpu_pairs import emulated, normal
from helpers import arrays

import schuss
from schuss.wrappers import offload

BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(offload, "_PIECE", 1000)


SHAPES = [(3500,), (0,), (7,), (40, 50), (1000,)]


def made(kind, dtype, **hypers):
    """An optimizer over master weights on the host, and Offload over the same parameters on the GPU."""
    values = [normal(shape, dtype, i) for i, shape in enumerate(SHAPES)]
    values[3] = np.asfortranarray(values[3])
    compute = np.float64 if dtype == np.float64 else np.float32
    here = kind([v.astype(compute) for v in values], **hypers)
    params = [gpu.Array(v) for v in values]
    return here, params, schuss.Offload(kind, params, **hypers)


def gradients(t, dtype):
    grads = [normal(shape, dtype, 10 * t + i) for i, shape in enumerate(SHAPES)]
    grads[3] = np.asfortranarray(grads[3])
    return grads


@pytest.mark.parametrize(
    ("dtype", "grad_dtype"),
    [(np.float32, np.float32), (BF16, BF16), (np.float16, np.float32), (np.float64, np.float64)],
)
@pytest.mark.parametrize(
    ("kind", "hypers"),
    [
        (schuss.AdamW, {}),
        (schuss.AdamW, dict(max_grad_norm=1.0)),
        (schuss.LAMB, {}),
        (schuss.LARS, dict(lr=0.1, weight_decay=0.1)),
        (schuss.SGD, dict(lr=schuss.schedules.warmup_cosine(0.1, 2, 9), momentum=0.9, nonfinite="skip")),
    ],
)
def test_results_are_those_of_master_weights_on_the_host(kind, hypers, dtype, grad_dtype):
    here, params, opt = made(kind, dtype, **hypers)
    on_gpu = [[gpu.Array(g) for g in gradients(t, grad_dtype)] for t in range(3)]
    for t in range(3):
        assert here.step(gradients(t, grad_dtype), grad_scale=2.0) and opt.step(on_gpu[t], grad_scale=2.0)
        assert opt.grad_norm == here.grad_norm
    for got, want in zip(arrays(opt.optimizer), arrays(here), strict=True):
        assert got.tobytes() == want.tobytes()
    for param, master in zip(params, here.param_groups[0]["params"], strict=True):
        assert param.host.tobytes() == master.astype(dtype).tobytes()


def test_groups_skipped_steps_and_zeroed_gradients():
    values = [normal(1500), normal(3, seed=1)]
    params = [gpu.Array(v) for v in values]
    groups = [{"params": {"w": params[0]}}, {"params": [params[1]], "lr": 0.5}]
    opt = schuss.Offload(schuss.SGD, groups, lr=0.1, nonfinite="skip", track_grad_norm=True)
    here = schuss.SGD([{"params": {"w": values[0].copy()}}, {"params": [values[1].copy()], "lr": 0.5}], lr=0.1)
    grads = [{"w": gpu.Array(normal(1500, seed=2))}, [gpu.Array(np.array([1, np.inf, 2], np.float32))]]
    assert opt.step(grads, zero_grads=True) is False and opt.optimizer.skipped_steps == 1
    assert opt.grad_norm == np.inf
    assert not grads[0]["w"].host.any() and not grads[1][0].host.any()
    assert (params[0].host == values[0]).all()
    good = [{"w": normal(1500, seed=2)}, [normal(3, seed=3)]]
    on_gpu = [{"w": gpu.Array(good[0]["w"])}, [gpu.Array(good[1][0])]]
    assert opt.step(on_gpu, zero_grads=True) and here.step(good)
    assert not on_gpu[0]["w"].host.any()
    for param, want in zip(params, arrays(here), strict=True):
        assert param.host.tobytes() == want.tobytes()
    opt.optimizer.nonfinite = "error"
    grads[1][0].host = np.array([1, 2, np.nan])
    with pytest.raises(FloatingPointError, match=r"^grads\[1\]\[0\] has a NaN or infinity, first at \(2,\)"):
        opt.step(grads)


def test_a_checkpoint_resumes_bit_for_bit(tmp_path):
    _, params, opt = made(schuss.Adam, BF16)
    opt.step([gpu.Array(g) for g in gradients(0, BF16)])
    schuss.save(tmp_path / "c", opt.optimizer)
    _, others, again = made(schuss.Adam, BF16)
    schuss.load(tmp_path / "c", again.optimizer)
    again.upload()
    for one in (opt, again):
        one.step([gpu.Array(g) for g in gradients(1, BF16)])
    assert all(a.host.tobytes() == b.host.tobytes() for a, b in zip(params, others, strict=True))


def test_wrong_calls():
    with pytest.raises(TypeError, match=r"^Offload takes a class whose step is a rule on each array"):
        schuss.Offload(schuss.Ranger, gpu.Array(normal(3)))
    with pytest.raises(TypeError, match=r"^Offload is for parameters on a GPU"):
        schuss.Offload(schuss.SGD, normal(3))
    with pytest.raises(TypeError, match=r"^Offload keeps master copies by itself, and its state in full"):
        schuss.Offload(schuss.Adam, gpu.Array(normal(3)), state_dtype="bfloat16")
    opt = schuss.Offload(schuss.SGD, [gpu.Array(normal(3))])
    with pytest.raises(ValueError, match=r"^grads\[0\] has shape \(4,\), but params\[0\] has shape \(3,\)"):
        opt.step([gpu.Array(normal(4))])
    assert opt.optimizer.step_count == 0


@emulated
def test_copies_overlap():
    """The next piece is copied to the host before this one returns; streams are ordered with the producer's."""
    values = normal(3000)
    opt = schuss.Offload(schuss.SGD, gpu.Array(values))
    grads = gpu.Array(values, stream=0x77)
    opt.step(grads)
    gpu.log()
    opt.step(grads)
    lines = gpu.log()
    inward, outward = (hex(stream) for stream in opt._streams)
    copies = [line.split()[2:] for line in lines if line.startswith("copy")]
    into, out = ["to-host", inward], ["to-device", outward]
    assert copies == [into, into, out, into, out, out]
    first, last = (
        lines.index(f"copy 4000 to-host {inward}"),
        len(lines) - lines[::-1].index(f"copy 4000 to-device {outward}"),
    )
    for producer in ("0x1", "0x77"):
        for own in (inward, outward):
            assert lines.index(f"order {producer} before {own}") < first
            assert lines.index(f"order {own} before {producer}") >= last
    assert not any(line.startswith("synchronize") for line in lines)


def test_missing_gradients():
    here, params, opt = made(schuss.AdamW, np.float32, max_grad_norm=1.0)
    for t in range(3):
        present = [(1, 1, 1, 1, 1), (0, 1, 1, 1, 0), (1, 0, 0, 1, 1)][t]
        given = [g if own else None for g, own in zip(gradients(t, np.float32), present, strict=True)]
        assert here.step(given)
        assert opt.step([None if g is None else gpu.Array(g) for g in given], zero_grads=True)
    for got, want in zip(arrays(opt.optimizer), arrays(here), strict=True):
        assert got.tobytes() == want.tobytes()
    for param, want in zip(params, here.param_groups[0]["params"], strict=True):
        assert param.host.tobytes() == want.tobytes()
    assert opt.optimizer.state_dict()["param_groups"] == here.state_dict()["param_groups"]


def test_an_upload_is_complete_when_it_returns():
    """The lazy emulator runs a copy when something waits for it: without that, it would copy the later values."""
    _, params, opt = made(schuss.SGD, np.float32)
    masters = opt.optimizer.param_groups[0]["params"]
    for master in masters:
        master[...] = 2.0
    opt.upload()
    for master in masters:
        master[...] = 3.0
    assert all((param.host == 2.0).all() for param in params)


@emulated
def test_an_upload_comes_after_the_copies_of_a_step_in_another_stream(monkeypatch):
    opt = schuss.Offload(schuss.SGD, gpu.Array(normal(3000)), lr=0.1)
    opt.step(gpu.Array(normal(3000)))
    monkeypatch.setattr("schuss._backends.cuda_arrays.current_stream", lambda framework, device: 0x61)
    gpu.log()
    opt.upload()
    outward = hex(opt._streams[1])
    lines = gpu.log()
    copied = next(line for line in lines if line.startswith("copy"))
    assert copied.endswith(outward) and lines.index(f"order 0x61 before {outward}") < lines.index(copied)


@emulated
def test_its_streams_are_given_back():
    opt = schuss.Offload(schuss.SGD, gpu.Array(normal(3)))
    stream = opt._streams[1]
    assert gpu.EMULATOR.cuStreamSynchronize(ctypes.c_void_p(stream)) == 0
    del opt
    assert gpu.EMULATOR.cuStreamSynchronize(ctypes.c_void_p(stream)) != 0


def test_pytorch_counts_its_steps_and_uploads(monkeypatch):
    opt = schuss.Offload(schuss.SGD, gpu.Array(normal(3)), nonfinite="skip")
    counted = []
    monkeypatch.setattr(opt._gpu, "count_changes", lambda: counted.append(opt.optimizer.step_count))
    opt.step(gpu.Array(normal(3)))
    opt.step(gpu.Array(np.full(3, np.inf, np.float32)))
    opt.upload()
    assert counted == [1, 1]
