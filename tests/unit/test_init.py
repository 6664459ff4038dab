"""Initializers: fans and bounds, distributions, orthogonality, random generators, out=, wrong calls."""

import json
import math
import re

import numpy as np
import pytest
from helpers import DATA, F32, F64
from hypothesis import given
from hypothesis import strategies as st

from schuss import init

TORCH = json.loads(next(DATA.glob("torch-schedules-*.json")).read_text())

# The initializers that use fans, and the bound or standard deviation that they compute from fan in and fan out.
BOUNDS = {
    "xavier_uniform": ({}, lambda i, o: math.sqrt(6 / (i + o))),
    "xavier_uniform, gain": ({"gain": 5 / 3}, lambda i, o: 5 / 3 * math.sqrt(6 / (i + o))),
    "kaiming_uniform": ({}, lambda i, o: math.sqrt(6 / i)),
    "kaiming_uniform, fan_out": ({"mode": "fan_out"}, lambda i, o: math.sqrt(6 / o)),
    "kaiming_uniform, tanh": ({"nonlinearity": "tanh"}, lambda i, o: 5 / 3 * math.sqrt(3 / i)),
    "kaiming_uniform, torch": ({"nonlinearity": "leaky_relu", "a": math.sqrt(5)}, lambda i, o: 1 / math.sqrt(i)),
    "lecun_uniform": ({}, lambda i, o: math.sqrt(3 / i)),
}
STDS = {
    "xavier_normal": ({}, lambda i, o: math.sqrt(2 / (i + o))),
    "xavier_normal, gain": ({"gain": 0.5}, lambda i, o: 0.5 * math.sqrt(2 / (i + o))),
    "kaiming_normal": ({}, lambda i, o: math.sqrt(2 / i)),
    "kaiming_normal, fan_out": ({"mode": "fan_out"}, lambda i, o: math.sqrt(2 / o)),
    "kaiming_normal, leaky": ({"nonlinearity": "leaky_relu", "a": 0.5}, lambda i, o: math.sqrt(2 / 1.25 / i)),
    "lecun_normal": ({}, lambda i, o: math.sqrt(1 / i)),
}
# Shape, layout, fan in, fan out.
SHAPES = [
    ((60, 400), "in_out", 60, 400),
    ((60, 400), "out_in", 400, 60),
    ((3, 5, 20, 90), "in_out", 300, 1350),
    ((90, 20, 3, 5), "out_in", 300, 1350),
    ((7, 40, 80), "in_out", 280, 560),
    ((80, 40, 7), "out_in", 280, 560),
]
ALL = {name: getattr(init, name) for name in init.__all__ if name != "gain"}
each_function = pytest.mark.parametrize("function", ALL.values(), ids=list(ALL))
each_shape = pytest.mark.parametrize("shape, layout, fan_in, fan_out", SHAPES)


def called(name, shape, **kwargs):
    return getattr(init, name.partition(",")[0])(shape, **kwargs)


@pytest.mark.parametrize("name", BOUNDS)
@each_shape
def test_uniform(name, shape, layout, fan_in, fan_out):
    """Values reach the bounds, never exceed them, and are uniform between."""
    kwargs, form = BOUNDS[name]
    bound = form(fan_in, fan_out)
    w = called(name, shape, layout=layout, rng=1, **kwargs)
    assert w.shape == shape and w.dtype == F32 and w.flags.c_contiguous
    assert abs(w).max() <= np.float32(bound)
    n = w.size
    assert min(-w.min(), w.max()) > bound * (1 - 20 / n), "the extremes miss the bound by about 2/n of it"
    assert_uniform(np.sort((w.ravel().astype(F64) / bound + 1) / 2))


@pytest.mark.parametrize("name", STDS)
@each_shape
def test_normal(name, shape, layout, fan_in, fan_out):
    kwargs, form = STDS[name]
    w = called(name, shape, layout=layout, rng=2, **kwargs)
    assert w.shape == shape and w.dtype == F32
    assert_uniform(np.sort([0.5 * math.erfc(-x / math.sqrt(2)) for x in w.ravel().astype(F64) / form(fan_in, fan_out)]))


def assert_uniform(sorted_values):
    """Kolmogorov's test that values are uniform in [0, 1]; a correct distribution fails for one seed in 10,000."""
    n = len(sorted_values)
    steps = np.arange(n + 1) / n
    distance = max(np.max(steps[1:] - sorted_values), np.max(sorted_values - steps[:-1]))
    assert distance < 2.23 / math.sqrt(n), distance * math.sqrt(n)


@pytest.mark.parametrize("name, a, value", TORCH["gains"])
def test_gains(name, a, value):
    assert init.gain(name, a) == pytest.approx(value, rel=1e-15)
    w = init.kaiming_normal((20, 30), nonlinearity=name, a=a, rng=3, dtype=F64)
    v = init.lecun_normal((20, 30), rng=3, dtype=F64)
    np.testing.assert_allclose(w, v * value, rtol=1e-14)


# Orthogonal.


@each_shape
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_orthogonal(shape, layout, fan_in, fan_out, gain):
    w = init.orthogonal(shape, gain=gain, layout=layout, rng=4, dtype=F64)
    assert w.shape == shape and w.dtype == F64
    matrix = w.reshape(-1, shape[-1]) if layout == "in_out" else w.reshape(shape[0], -1)
    fewer = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    np.testing.assert_allclose(fewer @ fewer.T, gain**2 * np.eye(len(fewer)), atol=1e-13 * gain**2)


@pytest.mark.parametrize("shape", [(4, 4), (2, 6), (6, 2), (1, 1)])
def test_orthogonal_is_uniform(shape):
    """The Haar distribution: every entry has mean 0 and variance 1/n. QR alone would fix some signs."""
    rng = np.random.default_rng(5)
    many = np.array([init.orthogonal(shape, rng=rng, dtype=F64) for _ in range(1500)])
    assert np.all(abs(many.mean(0)) < 5 / math.sqrt(1500))
    np.testing.assert_allclose(many.var(0), 1 / max(shape), rtol=0.25)
    assert {round(x) for x in np.linalg.det(many)} == {-1, 1} if shape[0] == shape[1] else True


def test_orthogonal_layouts_are_transposes():
    a, b = init.orthogonal((6, 4), rng=6), init.orthogonal((4, 6), layout="out_in", rng=6)
    np.testing.assert_array_equal(a, b.T)
    np.testing.assert_array_equal(init.orthogonal((2, 3, 4), rng=6), init.orthogonal((6, 4), rng=6).reshape(2, 3, 4))


# Truncated normal.


def normal_mass(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize(
    "low, high",
    [
        (-2, 2), (-0.5, 3), (-0.2, 0.1), (-math.inf, math.inf), (-1, math.inf), (-math.inf, -0.3), (0, math.inf),
        (0, 0.4), (0.5, 0.7), (1, 6), (4, math.inf), (4, 4.01), (-6, -4), (-1e-9, 1), (0, 1e-3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mean, std", [(0.0, 1.0), (-3.0, 0.25)])
def test_truncated_normal(low, high, mean, std):
    a, b = mean + std * low, mean + std * high
    w = init.truncated_normal(20_000, mean=mean, std=std, a=a, b=b, rng=7, dtype=F64)
    assert a <= w.min() and w.max() <= b
    # In the upper tail, 1 - cdf keeps its digits where cdf rounds to 1.
    sign = -1.0 if low > 0 else 1.0
    first, last = sorted((sign * (a - mean) / std, sign * (b - mean) / std))
    masses = np.sort([normal_mass(sign * x) for x in (w - mean) / std])
    assert_uniform((masses - normal_mass(first)) / (normal_mass(last) - normal_mass(first)))


@pytest.mark.parametrize("low", [20.0, 1e3, 1e8, 1e200])
def test_far_tails(low):
    """Far out, the tail is close to exponential with rate `low`; sampling neither hangs nor leaves the bounds."""
    w = init.truncated_normal(20_000, a=low, b=math.inf, rng=8, dtype=F64)
    assert w.min() >= low and np.isfinite(w).all()
    if low <= 1e3:
        excess = (w - low) * low
        assert excess.mean() == pytest.approx(1, abs=5 / math.sqrt(20_000) + 2 / low**2)
    other = init.truncated_normal(20_000, a=-math.inf, b=-low, rng=8, dtype=F64)
    np.testing.assert_array_equal(other, -w)


@given(
    st.floats(-50, 50), st.floats(1e-3, 1e3), st.floats(-100, 100), st.floats(1e-6, 100), st.sampled_from([F32, F64])
)
def test_truncation_is_never_exceeded(mean, std, a, width, dtype):
    w = init.truncated_normal((4, 5), mean=mean, std=std, a=a, b=a + width, rng=9, dtype=dtype)
    assert dtype.type(a) <= w.min() and w.max() <= dtype.type(a + width)


def test_truncation_as_in_keras():
    w = init.truncated_normal((300, 400), std=0.05 / 0.87962566103423978, a=-0.1, b=0.1, rng=10)
    assert w.std() == pytest.approx(0.05, rel=0.15)


# Random generators, dtypes, out=.


@each_function
def test_rng(function):
    """A seed repeats its numbers, a generator continues, and without either each call differs."""
    shape = (30, 40)
    w = function(shape, rng=11)
    for same in (11, np.int32(11), np.random.default_rng(11), np.random.PCG64(11), np.random.SeedSequence(11)):
        np.testing.assert_array_equal(function(shape, rng=same), w)
    rng = np.random.default_rng(11)
    np.testing.assert_array_equal(function(shape, rng=rng), w)
    assert not np.array_equal(function(shape, rng=rng), w)
    assert not np.array_equal(function(shape), function(shape))
    assert not np.array_equal(function(shape, rng=12), w)
    np.random.seed(0)  # noqa: NPY002 - to show that the global state is not used
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    function(shape)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@each_function
def test_dtypes_differ_by_one_rounding(function):
    w = function((30, 40), rng=13, dtype=np.float64)
    assert w.dtype == F64
    for dtype in (np.float32, "float32", "f4", F32):
        np.testing.assert_array_equal(function((30, 40), rng=13, dtype=dtype), w.astype(F32))


@each_function
@pytest.mark.parametrize("dtype", [F32, F64])
def test_out(function, dtype):
    """The array is filled in place and returned, in its own memory order and dtype."""
    shape = (30, 4, 50)
    want = function(shape, rng=14, dtype=dtype)
    block = np.full((60, 4, 60), 7.0, dtype)
    for out in (np.empty(shape, dtype), np.empty(shape, dtype, "F"), block[::2, :, 5:55], block[::-2, ::-1, :50]):
        assert function(shape, rng=14, out=out) is out
        np.testing.assert_array_equal(out, want)
    assert np.all(block[:, :, 55:] == 7.0) and out.dtype == dtype


@pytest.mark.parametrize("name", ["xavier_uniform", "kaiming_normal", "truncated_normal"])
def test_large_arrays_have_the_numbers_of_one_draw(name):
    """They are drawn in pieces; that must not change the numbers, and the last piece is included."""
    w = called(name, (3, 70_001), rng=15, dtype=F64)
    assert len(np.unique(w)) > 0.99999 * w.size
    if name == "kaiming_normal":
        want = np.random.default_rng(15).standard_normal((3, 70_001)) * math.sqrt(2 / 3)
        np.testing.assert_allclose(w, want, rtol=1e-15)


@each_function
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (3, 0, 5), [2, 3], (np.int64(2), 3)])
def test_shapes(function, shape):
    w = function(shape, rng=16)
    assert w.shape == tuple(shape) and np.isfinite(w).all()
    assert function(shape, out=np.empty(shape, F32)).shape == tuple(shape)


def test_shapes_without_fans():
    assert init.truncated_normal((), rng=17).shape == () and init.truncated_normal(5, rng=17).shape == (5,)
    out = np.full((), 9.0)
    assert init.truncated_normal((), out=out) is out and abs(out) <= 2


TWO = "shape must have at least two dimensions, inputs and outputs, got (5,)"
SLOPE = "a is the slope of 'leaky_relu' and has no meaning for 'relu', got 0.1"
SHAPE = "shape must be a tuple of whole numbers >= 0, got "
RNG = "rng must be a seed (a whole number >= 0) or a numpy.random.Generator, got "
READ_ONLY = np.zeros((2, 3), F32)
READ_ONLY.flags.writeable = False
NAMES = "'linear' or 'conv' or 'sigmoid' or 'tanh' or 'relu' or 'leaky_relu' or 'selu'"
FOR_ALL = [
    (dict(shape=(2, -3)), ValueError, SHAPE + "(2, -3)"),
    (dict(shape=(2, 3.0)), TypeError, SHAPE + "(2, 3.0)"),
    (dict(shape="23"), TypeError, SHAPE + "'23'"),
    (dict(shape=None), TypeError, SHAPE + "None"),
    (dict(rng=-1), ValueError, RNG + "-1"),
    (dict(rng=1.0), TypeError, RNG + "1.0"),
    (dict(rng=True), TypeError, RNG + "True"),
    (dict(rng="seed"), TypeError, RNG + "'seed'"),
    (dict(dtype=np.float16), TypeError, "dtype must be float32 or float64, got <class 'numpy.float16'>"),
    (dict(dtype=None), TypeError, "dtype must be float32 or float64, got None"),
    (dict(dtype="number"), TypeError, "dtype must be float32 or float64, got 'number'"),
    (dict(dtype=">f4"), TypeError, "dtype must be float32 or float64, got '>f4'"),
    (dict(out=[[0.0] * 3] * 2), TypeError, "out must be a NumPy array, got list"),
    (dict(out=np.zeros((2, 3), int)), TypeError, "out must have dtype float32 or float64, got int64"),
    (dict(out=np.zeros((3, 2))), ValueError, "out must have the shape (2, 3), got (3, 2)"),
    (dict(out=READ_ONLY), ValueError, "out is read-only; pass a writable array"),
]
FOR_SOME = [
    ("xavier_uniform", dict(shape=5), ValueError, TWO),
    ("orthogonal", dict(shape=(5,)), ValueError, TWO),
    ("orthogonal", dict(layout="in"), ValueError, "layout must be 'in_out' or 'out_in', got 'in'"),
    ("lecun_normal", dict(layout=None), TypeError, "layout must be 'in_out' or 'out_in', got None"),
    ("xavier_normal", dict(gain=0.0), ValueError, "gain must be a number > 0, got 0.0"),
    ("xavier_normal", dict(gain="relu"), TypeError, "gain must be a number > 0, got 'relu'"),
    ("kaiming_normal", dict(mode="fan"), ValueError, "mode must be 'fan_in' or 'fan_out', got 'fan'"),
    ("kaiming_normal", dict(nonlinearity="gelu"), ValueError, f"nonlinearity must be {NAMES}, got 'gelu'"),
    ("kaiming_uniform", dict(nonlinearity=None), TypeError, f"nonlinearity must be {NAMES}, got None"),
    ("kaiming_uniform", dict(a=-1), ValueError, "a must be a number >= 0, got -1"),
    ("kaiming_uniform", dict(a=0.1), ValueError, SLOPE),
    ("truncated_normal", dict(std=0), ValueError, "std must be a number > 0, got 0"),
    ("truncated_normal", dict(mean=math.inf), ValueError, "mean must be a finite number, got inf"),
    ("truncated_normal", dict(mean=10**400), ValueError, f"mean must be a finite number, got {10**400}"),
    ("truncated_normal", dict(a=10**400), ValueError, f"a must be less than b, got a={10**400} and b=2.0"),
    ("truncated_normal", dict(a=math.nan), ValueError, "a must be a number, got nan"),
    ("truncated_normal", dict(b="2"), TypeError, "b must be a number, got '2'"),
    ("truncated_normal", dict(a=2, b=2), ValueError, "a must be less than b, got a=2 and b=2"),
    (
        "truncated_normal", dict(a=1e10, b=math.inf, std=1e-300), ValueError,
        "a and b are too far from mean=0.0 for std=1e-300, got a=10000000000.0 and b=inf",
    ),
    (
        "truncated_normal", dict(a=-1e-30, b=1e-30, std=1e300), ValueError,
        "a and b are too close for mean=0.0 and std=1e+300, got a=-1e-30 and b=1e-30",
    ),
]  # fmt: skip


def refuses(function, kwargs, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        function(**{"shape": (2, 3), **kwargs})


@each_function
@pytest.mark.parametrize("kwargs, error, message", FOR_ALL, ids=[str(next(iter(row[0].items()))) for row in FOR_ALL])
def test_wrong_calls_of_all(function, kwargs, error, message):
    refuses(function, kwargs, error, message)


@pytest.mark.parametrize("name, kwargs, error, message", FOR_SOME)
def test_wrong_calls(name, kwargs, error, message):
    refuses(ALL[name], kwargs, error, message)


def test_a_wrong_call_leaves_the_generator_and_out_alone():
    rng, out = np.random.default_rng(18), np.full((2, 3), 7.0)
    before = rng.bit_generator.state
    for kwargs in (dict(gain=-1), dict(layout="x"), dict(shape=(3, 2))):
        with pytest.raises(ValueError):
            init.xavier_uniform(**{"shape": (2, 3), "rng": rng, "out": out, **kwargs})
    assert rng.bit_generator.state == before and np.all(out == 7.0)


def test_a_warning_that_is_an_exception_leaves_out_as_it_was():
    out = np.ones((4, 4), F32)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        init.orthogonal((4, 4), gain=1e39, rng=0, out=out)
    assert (out == 1.0).all()
