"""Code of the user's inside of a call, and objects that are not what they say: no memory is touched that is gone."""

import gc
import inspect
import weakref

import ml_dtypes
import numpy as np
import pytest
from helpers import F32

import schuss
from schuss import functional

LARGE = (2000, 2000)  # memory of such arrays goes back to the system at once


def momentum(opt):
    return next(iter(opt.state_dict()["state"][0].values()))[0]


def finalized(array, call):
    """What an array library may give: its temporary array calls a function when it dies."""

    class Library:
        def __array__(self, dtype=None, copy=None):
            made = array.copy()
            weakref.finalize(made, call)
            return made

    return Library()


@pytest.mark.parametrize("wrapper", [lambda o: schuss.EMA(o, decay=0.75), lambda o: schuss.Lookahead(o, k=1)])
def test_gradients_die_after_all_that_belongs_to_the_step(wrapper):
    w, gradient = np.ones(LARGE, F32), np.ones(LARGE, F32)
    same, calls = w.copy(), []
    opt, other = (wrapper(schuss.SM3([p], lr=0.5)) for p in (w, same))
    for one in (opt, other):
        one.step([gradient])

    def shrink():
        calls.append(w.copy())
        w.resize((10, 10), refcheck=False)

    assert opt.step([finalized(gradient, shrink)]) and other.step([gradient])
    assert len(calls) == 1 and calls[0].tobytes() == same.tobytes()


def test_no_collection_comes_between_a_check_and_a_copy():
    n = 10_000_000  # memory that goes back to the system when an array shrinks
    opt = schuss.SGD([np.ones(n, F32)], lr=0.1, momentum=0.9)
    opt.step([np.ones(n, F32)])
    momentum(opt)[...] = 0.0
    saved, threshold = opt.state_dict(), gc.get_threshold()

    def load(last, value):
        """Loads a state whose array shrinks in the collection of this number; returns how many there were."""
        source, count = np.full(n, value, F32), 0
        saved["state"] = [{name: [source] for name in own} for own in saved["state"]]

        def collected(phase, info):
            nonlocal count
            count += phase == "start"
            if count == last:
                source.resize(5, refcheck=False)

        gc.collect()
        gc.callbacks.append(collected)
        gc.set_threshold(1, 1, 1)
        try:
            opt.load_state_dict(saved)
        finally:
            gc.set_threshold(*threshold)
            gc.callbacks.remove(collected)
        return count

    most = min(load(None, 0.0) for _ in range(3))  # the last comes just before the copy
    for last in range(max(1, most - 6), most + 2):
        before = momentum(opt)[0]
        try:
            load(last, float(last))
            assert (momentum(opt) == last).all()
        except ValueError:
            assert (momentum(opt) == before).all()
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("changed", "message"),
    [("gradient", "^gradients changed while they were being read; nothing was updated"), ("parameter", "was resized")],
)
def test_schedules_of_matrix_products_change_arrays(changed, message):
    shape, armed = (64, 2000), False
    w, g = np.ones(shape, np.float16), np.ones(shape, F32)

    def betas(step):
        if armed and any(frame.function == "_matrix_work" for frame in inspect.stack()):
            (g if changed == "gradient" else w).resize((64, 70), refcheck=False)
        return 0.9, 0.99

    opt = schuss.SOAP([w], lr=0.1, betas=betas, max_precondition_dim=64)
    opt.step([g])
    armed, before = True, w.copy()
    with pytest.raises(ValueError, match=message):
        opt.step([g])
    assert w.tobytes() == before.tobytes()[: w.nbytes] and opt.step_count == 1


def test_other_values_that_the_garbage_collector_ends():
    def collected(shrinks):
        w = np.ones(LARGE, F32)
        opt = schuss.EMA(schuss.SGD([w], lr=0.5), decay=0.75)
        opt.step([np.ones_like(w)])
        own, context = w.copy(), opt.swap()
        context.__enter__()
        if shrinks:
            w.resize(10, refcheck=False)
        cycle = [context]
        cycle.append(cycle)
        return w, own

    for shrinks in (False, True):
        w, own = collected(shrinks)
        gc.collect()
        assert shrinks or w.tobytes() == own.tobytes()


@pytest.mark.parametrize("what", ["state", "gradients", "packed"])
def test_what_owns_memory_can_be_neither_resized_nor_released(what):
    (w,) = schuss.pack([np.ones(LARGE, F32)])
    opt = schuss.AdamW([w], lr=0.1)
    opt.step([np.ones_like(w)])
    found = {"state": momentum(opt), "gradients": opt.grads[0], "packed": w}[what]
    while isinstance(found, np.ndarray):
        assert not found.flags.owndata
        with pytest.raises(ValueError, match="resize"):
            found.resize(10, refcheck=False)
        found = found.base
    assert not hasattr(found, "release") and not hasattr(found, "resize")
    assert opt.step() and opt.step([np.ones_like(w)])


def test_types_that_are_called_bfloat16():
    class bfloat(np.void):
        pass

    called = np.dtype((bfloat, 2))
    assert called.name == "bfloat16"
    with pytest.raises(TypeError, match=r"^params\[0\] has dtype"):
        schuss.SGD([np.zeros(4, called)], lr=1.0)
    narrow = np.dtype(ml_dtypes.bfloat16).newbyteorder("=")
    narrow.__setstate__((3, "=", None, None, None, 1, 1, 0))
    memory = np.full(2000, 9, np.uint8)
    w = np.zeros(1000, F32)
    opt = schuss.SGD([w], lr=1.0)
    opt.step([np.zeros(1000, ml_dtypes.bfloat16)])
    for gradient in (memory[:1000].view("V1"), np.ndarray(1000, narrow, memory)):
        if gradient.nbytes == 1000:  # a version of NumPy may not let the size be set
            with pytest.raises(TypeError, match=r"^grads\[0\] has dtype"):
                opt.step([gradient], zero_grads=True)
    assert (memory == 9).all() and not w.any()


def test_an_array_that_tells_another_shape():
    class Lies(np.ndarray):
        said = None
        shape = property(lambda self: self.said or np.ndarray.shape.__get__(self))
        ndim = property(lambda self: len(self.shape))

    def lie(array, shape):
        array = array.view(Lies)
        array.said = shape
        return array

    batch, rows, cols = (2**64 + 2) // 3, 3, 12288  # the product is 2 * cols in 64 bits
    memory = np.full(3 * cols, 7, F32)
    p = lie(memory[: 2 * cols].reshape(2, cols), (batch, rows, cols))
    g = lie(np.ones((2, cols), F32), (batch, rows, cols))
    row, col = lie(np.zeros(2, F32), (batch, rows, 1)), lie(np.zeros(8192, F32), (batch, 1, cols))
    with pytest.raises((TypeError, ValueError)):
        functional.adafactor_(p, g, row, col, step=1)
    assert (memory == 7).all()
