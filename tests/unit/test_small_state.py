"""Quantized states and master weights: rounding, the stored format, memory, checkpoints."""

import copy
import itertools

import ml_dtypes
import numpy as np
import pytest
from cases import CASES
from helpers import (
    F32,
    F64,
    arrays,
    assert_same,
    build,
    cast,
    grads_of,
    is_newton,
    leaves,
    params_of,
    sampled_cases_but,
    spans_arrays,
    states,
)

import schuss
from schuss._arrays import checks

BF16 = np.dtype(ml_dtypes.bfloat16)


def round_trip(values, state_dtype, **options):
    """Values after they were stored in a state and read back: the first step's momentum is the gradient."""
    opt = schuss.SGD(np.zeros(values.shape, F32), lr=0.0, momentum=0.9, state_dtype=state_dtype, **options)
    opt.step(values)
    return read(opt, "b")


def dequantize(codes, scales):
    """The float32 values of an eight-bit state, computed from the guide's description."""
    signed = codes.dtype == np.int8
    flat = codes.ravel(order="K").view(np.uint8).astype(np.uint32)
    whole = flat.size // 256 * 256
    # Full blocks are stored as words of four values that are 64 elements apart.
    flat[:whole] = flat[:whole].reshape(-1, 64, 4).swapaxes(1, 2).ravel()
    added = np.float32(2.0**-7 if signed else 2.0**-15)
    size = flat & np.uint32(0x7F) if signed else flat
    values = ((size << np.uint32(19)) | added.view(np.uint32)).view(np.float32) - added
    if signed:
        values = np.where(flat > 0x7F, -values, values)
    with np.errstate(invalid="ignore"):
        values = values * np.repeat(scales, 256)[: flat.size]
    return values.reshape(codes.shape, order=checks.order(codes))


def read(opt, name):
    state = opt.state_dict()["state"][0]
    if f"{name}_scale" in state:
        return dequantize(state[name], state[f"{name}_scale"]).astype(F64)
    return state[name].astype(F64)


def numbers(n, seed=3):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(n) * 10.0 ** rng.uniform(-6, 2, n)).astype(F32)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_stochastic_rounding_keeps_the_expectation(dtype):
    """For every element, the mean over seeds is the value itself, within statistical error; the seeds are fixed."""
    x = np.append(numbers(509), np.array([0.0, -0.0, 1.0], F32))
    runs = np.array([round_trip(x, dtype, state_seed=seed) for seed in range(4000)])
    low, high = runs.min(0), runs.max(0)
    # A value very close to one of its two roundings may never have become the other.
    rare = 5e-3 * (np.abs(x) + (high - low).max())
    assert np.all((low <= x + rare) & (x - rare <= high))
    assert all(len(np.unique(column)) <= 2 for column in runs.T)
    often = np.minimum(x - low, high - x) > 0.01 * (high - low)
    assert often.sum() > 300
    variance = ((x - low) * (high - x))[often] / len(runs)  # of the mean of a two-valued variable
    z = (runs.mean(0) - x)[often] / np.sqrt(variance)
    assert np.max(np.abs(z)) < 5 and abs(np.mean(z)) < 5 / np.sqrt(often.sum())
    np.testing.assert_allclose(np.std(z), 1, atol=0.15)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_random_bits_of_elements_states_and_steps_are_independent(dtype):
    """All elements have one value: the right share is rounded up, independently for elements, states and steps."""
    n, steps = 25_600, 80
    x = np.full(n, 1.003, F32)
    x[::256] = 1.7  # one scale for every block
    opt = schuss.Adam(np.zeros(n, F32), lr=0.0, betas=(0.0, 0.0), state_dtype=dtype)
    ups = {"m": [], "v": []}
    for _ in range(steps):
        opt.step(x)
        for name, of_name in ups.items():
            values = np.delete(read(opt, name), np.s_[::256])
            low, high = values.min(), values.max()
            assert len(np.unique(values)) == 2
            expected = (float(np.float32(1.003)) ** (1 + (name == "v")) - low) / (high - low)
            of_name.append(((values == high) - expected) / np.sqrt(expected * (1 - expected)))
    size = ups["m"][0].size
    # Blocks of one step share random numbers, so products of the same step are correlated; the steps are independent.
    products = {"m and v": [one @ other for one, other in zip(ups["m"], ups["v"])]}
    for name, of_name in ups.items():
        rounded_up = np.array([one.sum() for one in of_name])
        assert abs(rounded_up.mean()) < 5 * np.sqrt(size / steps)
        assert rounded_up.std() == pytest.approx(np.sqrt(size), rel=0.4)
        for lag in (1, 2, 7, 8, 16, 64, 127, 128, 255, 256, 510, 1020):  # of each block of 256, 255 are left
            products[name, lag] = [one[:-lag] @ one[lag:] for one in of_name]
        products[name, "next step"] = [one @ other for one, other in itertools.pairwise(of_name)]
    for what, of_steps in products.items():
        of_steps = np.array(of_steps) / size
        assert abs(of_steps.mean()) < 5 * of_steps.std() / np.sqrt(steps), what
        assert of_steps.std() < 0.15, what


def test_rounding_to_nearest_is_exact():
    """Ties go to even, at every boundary of bfloat16 and next to it."""
    halves = np.arange(0, 2**16, dtype=np.uint16).view(BF16).astype(F32)
    bits = halves[np.isfinite(halves)].view(np.uint32)
    x = np.concatenate([bits + d for d in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]).astype(np.uint32).view(F32)
    x = x[np.isfinite(x)]
    opt = schuss.SGD(np.zeros(x.size, F32), lr=0.0, momentum=0.9, state_dtype="bfloat16", state_rounding="nearest")
    opt.step(x)
    assert_same([opt.state_dict()["state"][0]["b"]], [cast(x, BF16)])


def test_a_nan_stays_a_nan():
    """Random bits must not turn a NaN into a number, whatever its payload."""
    x = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF] * 60, np.uint32).view(F32)
    for rounding in ("stochastic", "nearest"):
        opt = schuss.SGD(np.zeros(x.size, F32), lr=0.0, momentum=0.9, state_dtype="bfloat16", state_rounding=rounding)
        opt.step(x)
        assert np.all(opt.state_dict()["state"][0]["b"].view(np.uint16) == 0x7FC0)


def test_int8_rounds_to_the_nearest_value():
    """Each value becomes the nearest one that its block can represent."""
    x = numbers(2560)
    opt = schuss.SGD(np.zeros(x.shape, F32), lr=0.0, momentum=0.9, state_dtype="int8", state_rounding="nearest")
    opt.step(x)
    got, scales = read(opt, "b"), opt.state_dict()["state"][0]["b_scale"]
    for block, of_block, scale in zip(np.split(x, 10), np.split(got, 10), scales):
        all_codes = dequantize(np.arange(-128, 128, dtype=np.int8), scale[None]).astype(F64)
        distance = np.abs(all_codes[:, None] - block).min(0)
        assert np.all(np.abs(of_block - block) <= distance + 1e-6 * np.abs(block))


def quantize(block, signed):
    """Scale and quantized values of a block, rounded to nearest, from the guide's description."""
    added, top = (2.0**-7, 31 / 16 - 2.0**-7) if signed else (2.0**-15, 31 / 16 - 2.0**-15)
    f = np.float32
    scale = np.abs(block).max() * (f(1) / (f(top) * f(1 - 2.0**-12)))
    sums = (np.abs(block).astype(np.longdouble) * (f(1) / scale) + added).astype(F32)
    exponent = np.floor(np.log2(sums.astype(F64)))
    codes = (exponent - np.log2(added)) * 16 + np.floor((sums / 2.0**exponent - 1) * 16 + 0.5)
    codes = codes if signed else np.maximum(codes, 1)
    return scale, codes.astype(np.int64) + 128 * (signed & np.signbit(block))


@pytest.mark.parametrize("name", ["m", "v"])
def test_quantized_values_are_those_of_the_guide(name):
    g = numbers(2560 + 99)
    opt = schuss.Adam(np.zeros(g.shape, F32), lr=0.0, betas=(0.0, 0.0), state_dtype="int8", state_rounding="nearest")
    opt.step(g)
    state = opt.state_dict()["state"][0]
    got, x = state[name].view(np.uint8), g if name == "m" else g * g
    ends = range(256, 2561, 256)
    for block, codes, scale in zip(np.split(x, ends), np.split(got, ends), state[f"{name}_scale"], strict=True):
        expected = quantize(block, name == "m")
        assert scale == expected[0]
        in_order = codes.reshape(64, 4).T.ravel() if codes.size == 256 else codes
        assert_same([in_order.astype(np.int64)], [expected[1]])


def test_the_resolution_is_that_of_the_guide():
    """Distances between neighbouring values, relative to the block's largest, for signed and for nonnegative states."""
    for dtype, count, powers in ((np.int8, 128, 8), (np.uint8, 256, 16)):
        codes = np.arange(count).astype(np.uint8).view(dtype)
        values = np.concatenate([dequantize(some, np.ones(1, F32)) for some in np.split(codes, 2)]).astype(F64)
        assert values[0] == 0 and np.all(np.diff(values) > 0)
        values /= values[-1]
        steps = np.diff(values)
        assert (steps / values[1:])[values[1:] > 2.0 ** (4 - powers)].max() < 1 / 15
        np.testing.assert_allclose(steps[:16], steps[0])
        assert steps[0] == pytest.approx(2.0 ** (-4 - powers), rel=0.05)


def test_a_second_moment_never_becomes_zero():
    """Updates divide by it."""
    g = np.full(256, 1e-18, F32)
    g[0] = 1.0
    opt = schuss.AdamW(np.ones(256, F32), lr=0.1, weight_decay=0.0, eps=0.0, state_dtype="int8")
    for _ in range(50):
        opt.step(g)
        assert np.all(read(opt, "v") > 0)
    assert np.isfinite(opt.param_groups[0]["params"][0]).all()


@pytest.mark.parametrize(("dtype", "of_float32"), [("bfloat16", 2), ("int8", None)])
@pytest.mark.parametrize("shape", [(1,), (255,), (256,), (257,), (1000, 1000)])
def test_memory(dtype, of_float32, shape):
    """bfloat16 takes half of float32; int8 a quarter, and a float32 scale for every 256 elements or part of them."""
    opt = schuss.AdamW(np.zeros(shape, F32), state_dtype=dtype)
    n = int(np.prod(shape))
    held = sum(a.nbytes for a in states(opt).values())
    assert held == 2 * (4 * n // of_float32 if of_float32 else n + 4 * -(-n // 256))
    assert f"state {held:,} bytes" in repr(opt)


def test_nonfinite_values_affect_their_block_only():
    for bad in (np.nan, np.inf):
        g = np.ones(1000, F32)
        g[300] = bad
        p = np.zeros(1000, F32)
        opt = schuss.Adam(p, state_dtype="int8")
        opt.step(g)
        opt.step(np.ones(1000, F32))
        assert_same(np.flatnonzero(np.isnan(p)), np.arange(256, 512))


MASTER_CASES = [c for c in CASES if not is_newton(c)]


@pytest.mark.parametrize("case", MASTER_CASES, ids=repr)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_master_weights(case, dtype):
    """The step runs in float32 on the master weights; the parameter is their rounding to nearest even."""
    dtype = np.dtype(dtype)
    shapes = [(33,), (4, 5)]
    params = params_of(shapes, dtype)
    wide = [p.astype(F32) for p in params]
    opt, twin = build(case, params, master_weights=True), build(case, wide)
    for t in range(1, 9):
        grads = grads_of(t, shapes, dtype)
        opt.step(grads)
        twin.step(grads)
        assert_same(leaves(opt.state_dict()["state"][0]["master"]), wide, f"step {t}")
        assert_same(params, [cast(w, dtype) for w in wide], f"step {t}")


@sampled_cases_but(is_newton)
def test_master_weights_beside_wider_parameters(case):
    """Only parameters of 16 bits have a copy, also where a model has others, and where they come later."""
    dtypes = [BF16, F32, np.dtype(np.float16), F32]
    params = [p.astype(dtype) for p, dtype in zip(params_of([(33,), (4, 5), (6, 2), (7,)]), dtypes, strict=True)]
    wide = [p.astype(F32) for p in params]
    opt, twin = (build(case, own[:3], **more) for own, more in ((params, dict(master_weights=True)), (wide, {})))
    for t in range(1, 7):
        if t == 3 and not spans_arrays(case):
            opt.add_param_group({"params": params[3]})
            twin.add_param_group({"params": wide[3]})
        grads = [g.astype(dtype) for g, dtype in zip(grads_of(t, [p.shape for p in params]), dtypes, strict=True)]
        given = grads[:3] if len(opt.param_groups) == 1 else [grads[:3], grads[3]]
        opt.step(given)
        twin.step(given)
        assert_same(params, [cast(w, dtype) for w, dtype in zip(wide, dtypes, strict=True)], f"step {t}")
    assert [own is None for own in opt.state_dict()["state"][0]["master"]] == [False, True, False]
    saved = build(case, [p.copy() for p in params[:3]], master_weights=True)
    if len(opt.param_groups) > 1:
        saved.add_param_group({"params": params[3].copy()})
    saved.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert_same(arrays(saved), arrays(opt))


def test_master_weights_keep_small_updates():
    for master, want in ((False, 1.0), (True, 0.0)):
        w = np.ones(1, BF16)
        opt = schuss.SGD(w, lr=1.0, master_weights=master)
        for _ in range(1000):
            opt.step(np.full(1, 1e-3, F32))
        assert abs(float(w[0]) - want) < 1e-4


def test_the_seed_is_saved(tmp_path):
    """A checkpoint has seed and rounding, so that training resumes bit for bit."""
    path = tmp_path / "opt.safetensors"
    for dtype in ("bfloat16", "int8"):
        for rounding in ("stochastic", "nearest"):
            p, q, r = (np.linspace(-1, 1, 1000, dtype=F32) for _ in range(3))
            opt = schuss.AdamW(p, state_dtype=dtype, state_seed=5, state_rounding=rounding)
            same, other = schuss.AdamW(q, state_dtype=dtype), schuss.AdamW(r, state_dtype=dtype, state_seed=6)
            for t in range(5):
                for o in (opt, other):
                    o.step(grads_of(t, [(1000,)])[0])
            assert p.tobytes() != r.tobytes()
            schuss.save(path, opt)
            schuss.load(path, same)
            assert_same(arrays(same), arrays(opt))
            for t in range(5, 10):
                for o in (opt, same):
                    o.step(grads_of(t, [(1000,)])[0])
            assert_same(arrays(same), arrays(opt))


def test_checkpoints_of_another_state_format_are_refused(tmp_path):
    """The error says which option to use, and nothing changes."""
    path = tmp_path / "opt.safetensors"
    w = np.ones(300, BF16)
    made = {
        "plain": {},
        "float32": dict(state_dtype="float32"),
        "bfloat16": dict(state_dtype="bfloat16"),
        "int8": dict(state_dtype="int8"),
        "master": dict(master_weights=True),
    }
    made = {name: schuss.AdamW(w.copy(), **options) for name, options in made.items()}
    for name, opt in made.items():
        opt.step(np.ones(300, F32))
        schuss.save(path, opt)
        for other, twin in made.items():
            before = copy.deepcopy(arrays(twin))
            if {name, other} <= {"plain", "float32"} or name == other:
                twin.load_state_dict(opt.state_dict())
                schuss.load(path, twin)
                continue
            for load in (
                lambda twin=twin: schuss.load(path, twin),
                lambda t=twin, o=opt: t.load_state_dict(o.state_dict()),
            ):
                with pytest.raises(ValueError, match=r"make it with (state_dtype|master_weights)="):
                    load()
            assert_same(arrays(twin), before)


def test_int8_state_of_another_memory_order_is_refused():
    c, f = np.ones((30, 40), F32), np.ones((30, 40), F32, order="F")
    one, other = (schuss.AdamW(p, state_dtype="int8") for p in (c, f))
    with pytest.raises(ValueError, match="memory order"):
        other.load_state_dict(one.state_dict())


@pytest.mark.slow
def test_huge_arrays():
    """More elements than a 32-bit integer can count: SGD over 2^31 + 5 bfloat16 values."""
    n = 2**31 + 5
    p, g = np.zeros(n, BF16), np.zeros(n, BF16)
    places = [0, 1, 2**30, 2**31 - 1, 2**31, 2**31 + 1, n - 1]
    g[places] = 1.0
    schuss.SGD(p, lr=0.5).step(g)
    assert np.all(p[places].astype(F32) == -0.5)
    assert np.count_nonzero(p.view(np.uint16)) == len(places)
