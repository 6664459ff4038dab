"""Random arguments of a hostile user: arrays, structures, gradients, hyperparameters. Knows no optimizer."""

import math

import ml_dtypes
import numpy as np

FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
OTHERS = [np.int64, np.bool_, np.complex64, np.uint8, np.dtype(">f4"), np.dtype(object)]
SHAPES = [(), (0,), (1,), (5,), (64,), (1030,), (3, 4), (2, 3, 4), (0, 3), (17, 9), (12, 12)]
LONG = (20_000,)  # enough for several threads, and for a step that releases the GIL
NUMBERS = [0, 1, -1, 0.5, 0.9, 0.999, 1e-3, 1e-8, 1e-300, 1e300, math.nan, math.inf, -math.inf, True, 10**30]
ODD = [
    None,
    "x",
    b"x",
    (),
    (0.9,),
    (0.9, 0.99),
    (0.5, 0.9, 0.99),
    (0.9, 2.0),
    (0.9, None),
    [0.9, 0.9],
    {},
    1j,
    object(),
]
TYPED = [
    np.float32(0.9),
    np.float64(0.1),
    np.int64(3),
    np.bool_(True),
    np.array(0.5),
    np.array([0.5, 0.5]),
    np.float16(0.1),
]


class Hostile(Exception):
    """What the caller's own code raises."""


class Subclass(np.ndarray):
    """An array subclass, as of other packages."""


class Raising:
    """Raises whatever is asked of it."""

    def __array__(self, dtype=None, copy=None):
        raise Hostile

    def __float__(self):
        raise Hostile

    def __call__(self, *_):
        raise Hostile


class Schedule:
    """A schedule of the user, which is not copied."""

    def __init__(self, function):
        self.function = function

    def __call__(self, step):
        return self.function(step)

    def __deepcopy__(self, _):
        return self

    def __reduce__(self):
        raise Hostile

    def __repr__(self):
        return "Schedule"


def number(rng):
    """A hyperparameter, valid or not."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(NUMBERS)
    if kind < 0.75:
        return rng.choice(ODD)
    if kind < 0.9:
        return rng.choice(TYPED)
    return Raising() if kind < 0.93 else rng.random()


def values(rng, shape, dtype):
    """An array with numbers of all sizes, sometimes NaN or infinite."""
    own = np.random.default_rng(rng.getrandbits(32))
    array = own.standard_normal(shape)
    if rng.random() < 0.1:
        array = array * 10.0 ** own.integers(-40, 40, shape)
    if rng.random() < 0.1 and array.size:
        array.flat[rng.randrange(array.size)] = rng.choice([math.nan, math.inf, -math.inf])
    with np.errstate(all="ignore"):
        return np.asarray(array).astype(dtype)


def strided(rng, array):
    """The array in another layout."""
    kind = rng.randrange(12)
    if kind == 0:
        return np.asfortranarray(array)
    if kind == 1:
        return array.T
    if kind == 2 and array.ndim:
        return np.repeat(array, 2, axis=0)[::2]
    if kind == 3 and array.ndim:
        return array[::-1]
    if kind == 4:
        array = array.copy()
        array.flags.writeable = False
        return array
    if kind == 5:
        return np.broadcast_to(array, (2, *array.shape))
    if kind == 6:
        return array.view(Subclass)
    if kind == 7 and array.dtype != object and array.dtype.itemsize > 1:  # not aligned
        raw = np.zeros(array.nbytes + 1, np.uint8)
        return raw[1:].view(array.dtype).reshape(array.shape) if array.size else array
    return array


def leaf(rng):
    """An array, or what is none."""
    kind = rng.random()
    if kind < 0.03:
        return rng.choice([None, "w", 1.0, np.float32(1), [1.0, 2.0], Raising(), b"raw", memoryview(bytearray(16))])
    dtype = rng.choice(FLOATS) if kind < 0.95 else rng.choice(OTHERS)
    array = values(rng, LONG if rng.random() < 0.01 else rng.choice(SHAPES), np.float64)
    with np.errstate(all="ignore"):
        array = array.astype(dtype)
    return strided(rng, array) if rng.random() < 0.3 else array


def structure(rng, depth=0):
    """Arrays in lists, tuples and dicts, sometimes the same memory twice."""
    kind = rng.random()
    if depth == 2 or kind < 0.3:
        return leaf(rng)
    entries = [structure(rng, depth + 1) for _ in range(rng.randrange(4))]
    if rng.random() < 0.05 and entries:
        entries.append(entries[0])
    if rng.random() < 0.05 and entries and isinstance(entries[0], np.ndarray) and entries[0].ndim:
        entries.append(entries[0][1:])
    if kind < 0.55:
        return entries
    if kind < 0.65:
        return tuple(entries)
    keys = rng.sample(["w", "b", 1, 2.5, ("a", 1), None, "", "a.b", True, "π"], len(entries))
    return dict(zip(keys, entries))


def like(rng, params):
    """Gradients for these parameters: mostly of their structure and shapes."""
    if rng.random() < 0.02:
        return structure(rng)
    if isinstance(params, dict):
        return {key: like(rng, value) for key, value in params.items() if rng.random() > 0.01}
    if isinstance(params, (list, tuple)):
        return type(params)(like(rng, value) for value in params)
    if isinstance(params, np.ndarray):
        if rng.random() < 0.03:
            return rng.choice([params, params[..., None], params.T, params.tolist(), None])
        dtype = params.dtype if rng.random() < 0.7 else rng.choice(FLOATS)
        if dtype == np.dtype(object):
            return params
        made = values(rng, params.shape, dtype)
        return strided(rng, made) if rng.random() < 0.2 else made
    return params


def of_rows(rng, grads):
    """Gradients in which some arrays are those of rows, mostly as they should be."""
    if isinstance(grads, dict):
        return {key: of_rows(rng, value) for key, value in grads.items()}
    if isinstance(grads, (list, tuple)):
        return type(grads)(of_rows(rng, value) for value in grads)
    if not isinstance(grads, np.ndarray) or rng.random() < 0.2:
        return grads
    low, high = (
        (-1, len(grads) + 1) if grads.ndim and rng.random() < 0.1 else (0, max(len(grads), 1) if grads.ndim else 1)
    )
    indices = np.array([rng.randrange(low, high) for _ in range(rng.randrange(6))], rng.choice([np.int64, np.int32]))
    if rng.random() < 0.05:
        indices = rng.choice([indices.astype(float), indices[:, None], indices.tolist(), Raising(), None])
    rows = values(rng, (len(indices) if isinstance(indices, np.ndarray) else 2, *grads.shape[1:]), grads.dtype)
    pair = indices, strided(rng, rows) if rng.random() < 0.2 else rows
    return pair if rng.random() < 0.9 else list(pair) + [None] * rng.randrange(2)


def hessian(rng, params):
    """A Hessian for Newton's method, mostly of the right size."""
    size = sum(array.size for array in arrays(params)) + (rng.random() < 0.03)
    if size > 200:
        return np.eye(2)
    matrix = values(rng, (size, size), np.float64) if rng.random() < 0.1 else np.eye(size)
    return matrix if rng.random() < 0.95 else rng.choice([None, number(rng), leaf(rng)])


def overlapping(rng, grads, own):
    """Gradients some of which are arrays of the optimizer's own, or views of their memory."""
    if isinstance(grads, dict):
        return {key: overlapping(rng, value, own) for key, value in grads.items()}
    if isinstance(grads, (list, tuple)):
        return type(grads)(overlapping(rng, value, own) for value in grads)
    fitting = [array for array in own if isinstance(grads, np.ndarray) and array.size >= grads.size > 0]
    if not fitting or rng.random() < 0.3:
        return grads
    flat = rng.choice(fitting)
    if not flat.flags.c_contiguous:
        return flat
    flat = flat.reshape(-1)
    start = rng.randrange(flat.size - grads.size + 1)
    return flat[start : start + grads.size].reshape(grads.shape)


def mutate(rng, params):
    """Writes into the user's own arrays."""
    for array in arrays(params):
        if array.flags.writeable and array.dtype != object and rng.random() < 0.5:
            array[...] = rng.choice([0, 1, 3])


def resize(rng, params):
    """Moves the memory of the user's own arrays, where NumPy allows it."""
    for array in arrays(params):
        if array.base is None and array.flags.writeable and rng.random() < 0.7:
            try:
                array.resize(rng.choice([(0,), (1,), (100_000,), (3, 4)]), refcheck=False)
            except ValueError:
                continue


def arrays(thing, found=None):
    """All arrays in a structure."""
    found = [] if found is None else found
    if isinstance(thing, np.ndarray):
        found.append(thing)
    elif isinstance(thing, dict):
        for value in thing.values():
            arrays(value, found)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            arrays(value, found)
    return found
