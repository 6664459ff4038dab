"""Steps over arrays on a GPU give the results of the host: memory layouts, options of a step, state, wrappers.

Every optimizer's arithmetic is in test_gpu_bits.py.
"""

import copy
import ctypes

import gpu
import ml_dtypes
import numpy as np
import pytest
from gpu_pairs import assert_same, emulated, normal, pair, step_both
from helpers import arrays

import schuss

BF16 = np.dtype(ml_dtypes.bfloat16)


def test_optimizers_on_a_gpu_have_the_same_class():
    opt = schuss.AdamW({"w": gpu.Array(normal(3))})
    assert isinstance(opt, schuss.AdamW) and type(opt).__name__ == "AdamW"
    assert repr(opt).startswith("AdamW: step 0, 1 arrays, 3 elements (float32), state 24 bytes")
    assert opt.param_groups[0]["params"][0].owner.shape == (3,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BF16])
@pytest.mark.parametrize("offset", [0, 1])
def test_arrays_may_start_at_any_offset(dtype, offset):
    values = [normal(n, dtype, n) for n in (1, 5, 16_384, 16_389, 40_000)]
    here = schuss.AdamW([v.copy() for v in values], max_grad_norm=1.0)
    there = schuss.AdamW([gpu.Array(v, offset=offset) for v in values], max_grad_norm=1.0)
    for t in range(3):
        grads = [normal(v.shape, np.float32, t) for v in values]
        here.step(grads)
        there.step([gpu.Array(g, offset=1 - offset) for g in grads])
    assert_same(here, there)


class Lent(gpu.Array):
    """An array that only DLPack describes."""

    __cuda_array_interface__ = property()

    def __dlpack_device__(self):
        return 2, self.device

    def __dlpack__(self, stream):
        assert stream == 1
        memory = (ctypes.c_char * self.nbytes).from_address(self.pointer)
        return np.ndarray(self.shape, self.dtype, memory, order=self.order).__dlpack__()


@emulated
def test_arrays_through_dlpack():
    values = [normal((3, 5), order="F"), normal(7, np.float64), normal(9, np.float16)]
    here, there = schuss.AdamW([v.copy("K") for v in values]), schuss.AdamW([Lent(v) for v in values])
    for t in range(2):
        grads = [normal(v.shape, v.dtype, t, "F") for v in values]
        assert here.step([g.copy("K") for g in grads]) and there.step([Lent(g) for g in grads])
    assert_same(here, there)
    with pytest.raises(TypeError, match=r"^grads\[2\] has dtype of type code 0 with 32 bits; a gradient must be"):
        there.step([*(Lent(v) for v in values[:2]), Lent(np.arange(9, dtype=np.int32))])


@pytest.mark.parametrize("kind", [schuss.AdamW, schuss.LAMB, schuss.Ranger])
@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_orders(kind, order):
    values = [normal((37, 1031), seed=1, order=order), normal((5, 3), seed=2, order=order)]
    here, there = pair(kind, values)
    for t in range(7):
        step_both(here, there, [normal(v.shape, np.float32, t, order) for v in values])
    assert_same(here, there)


def test_groups_grad_scale_and_zero_grads():
    values = [normal((30, 20)), normal(7, np.float64)]
    grads = [normal((30, 20), seed=1), normal(7, np.float32, 2)]
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


def test_gradient_buffers():
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
def test_nonfinite_gradients(bad, clip):
    values = [normal(2000), normal((40, 50))]
    grads = [normal(2000, seed=3), normal((40, 50), seed=4)]
    wrong = [grads[0], grads[1].copy()]
    wrong[1][30, 7] = wrong[1][35, 0] = bad
    here, there = pair(schuss.Adam, values, nonfinite="skip", max_grad_norm=clip)
    step_both(here, there, grads)
    step_both(here, there, wrong)
    assert there.skipped_steps == 1 and there.step_count == 1 and repr(there.grad_norm) == repr(here.grad_norm)
    assert there.grad_norm is None if clip is None else not np.isfinite(there.grad_norm)
    assert here.clip_factor is None and there.clip_factor is None
    left = [gpu.Array(g) for g in wrong]
    assert there.step(left, zero_grads=True) is False and not any(g.host.any() for g in left)
    here.nonfinite = there.nonfinite = "error"
    for opt, made in ((here, np.array), (there, gpu.Array)):
        with pytest.raises(FloatingPointError, match=r"^grads\[1\] has a NaN or infinity, first at \(30, 7\)"):
            opt.step([made(g) for g in wrong])
    step_both(here, there, grads)
    assert_same(here, there)


def test_a_gradient_whose_square_overflows_is_finite():
    here, there = pair(schuss.SGD, [np.ones(3)], nonfinite="skip")
    step_both(here, there, [np.array([1e200, 1.0, 1.0])])
    assert there.step_count == 1


@pytest.mark.parametrize("large", [1e160, 1e-160, 1e307, np.inf])
def test_norms_whose_squares_overflow_or_vanish(large):
    values = [normal(3000, np.float64), normal(3000), normal(5, np.float64)]
    grads = [normal(3000, np.float64, 1) * large, normal(3000, seed=2) * (large > 1), normal(5, np.float64, 3) * large]
    for nonfinite in ("propagate", "skip"):
        here, there = pair(schuss.SGD, values, max_grad_norm=1.5, nonfinite=nonfinite)
        for scale in (1.0, 1e-3):
            step_both(here, there, [g * g.dtype.type(scale) for g in grads])
            assert repr(there.grad_norm) == repr(here.grad_norm)
        assert_same(here, there)


def test_state_and_checkpoints_move_between_host_and_gpu(tmp_path):
    values = [normal((20, 30), BF16), normal(9, np.float64), normal((4, 5, 6), order="F")]
    here, there = pair(schuss.Adam, values, amsgrad=True)
    for t in range(2):
        step_both(here, there, [normal(v.shape, np.float32, t, "F" if v.ndim == 3 else "C") for v in values])
    other_here, other_there = pair(schuss.Adam, values, amsgrad=True)
    other_here.load_state_dict(there.state_dict())
    other_there.load_state_dict(here.state_dict())
    schuss.save(tmp_path / "here", here)
    schuss.save(tmp_path / "there", there)
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()
    schuss.load(tmp_path / "there", other_here)
    schuss.load(tmp_path / "here", other_there)
    grads = [normal(v.shape, np.float32, 9, "F" if v.ndim == 3 else "C") for v in values]
    step_both(here, there, grads)
    step_both(other_here, other_there, grads)
    for opt in (there, other_here, other_there):
        assert_same(here, opt)


def test_initial_state():
    here, there = pair(schuss.Adagrad, [normal(5), normal(7, BF16)], initial_accumulator_value=0.5)
    assert_same(here, there)


@pytest.mark.parametrize("pullback", ["none", "reset", "pullback"])
def test_lookahead(pullback):
    values = [normal((20, 30)), normal(9, BF16), normal(8, np.float64)]
    here, there = (schuss.Lookahead(opt, k=2, pullback=pullback) for opt in pair(schuss.SGD, values, momentum=0.9))
    for t in range(5):
        step_both(here, there, [normal(v.shape, np.float32, t) for v in values])
    with here.evaluate(), there.evaluate():
        assert_same(here, there)
    assert_same(here, there)
    here.sync()
    there.sync()
    assert_same(here, there)


@pytest.mark.parametrize("kind", [schuss.Prodigy, schuss.DAdaptSGD, schuss.NovoGrad, schuss.Adafactor, schuss.CAME])
def test_row_column_array_and_shared_states_are_saved_and_loaded(kind, tmp_path):
    values = [normal((3, 40)), normal(5000, seed=1), normal((2, 3, 70), seed=2, order="F"), normal(0)]
    grads = [[normal(v.shape, seed=t, order="F" if v.ndim == 3 else "C") for v in values] for t in range(6)]
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


@pytest.mark.parametrize("kind", [schuss.Prodigy, schuss.DAdaptSGD, schuss.NovoGrad, schuss.Adafactor, schuss.CAME])
def test_a_skipped_step_of_several_passes_changes_nothing(kind):
    values = [normal((3, 40)), normal(5000, seed=1)]
    here, there = pair(kind, values, nonfinite="skip")
    step_both(here, there, [normal(v.shape, seed=7) for v in values])
    bad = [normal(v.shape, seed=8) for v in values]
    bad[1][4097] = np.inf
    step_both(here, there, bad)
    assert there.skipped_steps == 1
    step_both(here, there, [normal(v.shape, seed=9) for v in values])
    assert_same(here, there)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (schuss.AdamW, dict(max_grad_norm=1.0, nonfinite="skip")),
        (schuss.LAMB, {}),
        (schuss.Prodigy, {}),
        (schuss.Ranger, dict(k=2)),
        (schuss.ScheduleFreeAdamW, {}),
    ],
)
def test_missing_gradients(kind, options):
    values = [normal((30, 20), seed=1), normal(7, np.float64, 2), normal((5, 3), seed=3)]
    here, there = pair(kind, values, **options)
    for t in range(6):
        grads = [normal(v.shape, np.float32, t) for v in values]
        present = [(1, 1, 1), (1, 0, 1), (0, 1, 1), (0, 0, 0), (1, 0, 0), (1, 1, 1)][t]
        for opt, made in ((here, np.array), (there, gpu.Array)):
            given = [made(g) if own else None for g, own in zip(grads, present, strict=True)]
            assert opt.step(given, zero_grads=True)
        assert here.grad_norm is None or np.isclose(here.grad_norm, there.grad_norm)
    assert_same(here, there)
    assert here.state_dict()["param_groups"] == there.state_dict()["param_groups"]
    assert there.state_dict()["param_groups"][0]["missed_steps"] == {"[0]": 2, "[1]": 3, "[2]": 2}
    other = kind([gpu.Array(np.asarray(p.owner.host)) for p in there.param_groups[0]["params"]], **options)
    other.load_state_dict(there.state_dict())
    for opt in (there, other):
        opt.step([gpu.Array(g) for g in grads])
    for got, want in zip(arrays(other), arrays(there), strict=True):
        assert np.asarray(got).tobytes() == np.asarray(want).tobytes()


@pytest.mark.parametrize(
    ("kind", "options"),
    [(schuss.DoG, {}), (schuss.DoG, dict(layerwise=True)), (schuss.Prodigy, {}), (schuss.DAdaptAdam, {})],
)
def test_a_first_step_without_gradients(kind, options):
    """It changes no state, those of all arrays included."""
    here, there = pair(kind, [normal(40)], **options)
    for grads in ([None], [normal(40, seed=1)], [normal(40, seed=2)]):
        for opt, made in ((here, np.array), (there, gpu.Array)):
            assert opt.step([g if g is None else made(g) for g in grads])
        assert_same(here, there)


def test_partial_gradients_and_holes():
    values = {"w": normal((3, 2)), "b": None, "v": normal(4)}
    here = schuss.Adam({key: v if v is None else v.copy() for key, v in values.items()})
    there = schuss.Adam({key: v if v is None else gpu.Array(v) for key, v in values.items()})
    g = normal(4, seed=1)
    assert here.step({"v": g}, partial=True) and there.step({"v": gpu.Array(g)}, partial=True)
    assert here.step({"w": None, "b": None, "v": g}) and there.step({"w": None, "b": None, "v": gpu.Array(g)})
    assert_same(here, there)
    with pytest.raises(ValueError, match=r"grads\['b'\] must be None"):
        there.step({"w": None, "b": gpu.Array(g), "v": gpu.Array(g)})
    there.add_param_group({"params": [gpu.Array(g)]})
    assert there.step([None, [gpu.Array(g)]])
    first, second = there.state_dict()["param_groups"]
    assert first["missed_steps"] == {"['w']": 3, "['v']": 1} and "missed_steps" not in second
