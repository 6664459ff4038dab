"""Packed parameters: views of one block in the same structure, and steps with the bits of unpacked ones."""

import numpy as np
import pytest
from helpers import (
    DTYPES,
    F32,
    F64,
    assert_same,
    build,
    each_dtype,
    grads_of,
    is_newton,
    leaves,
    params_of,
    refused,
    sampled_cases_but,
    shared,
    snapshot,
    states,
)

import schuss

# Lengths that are no multiples of a block, an empty array, a long one, and several dimensions.
SHAPES = [(7,), (), (0,), (5, 300), (2, 3, 4), (1024,), (3000,), (33,)]


def both(case, dtype=F64):
    """The same optimizer over separate arrays and over packed ones."""
    params = params_of(SHAPES, dtype)
    params[3] = np.asfortranarray(params[3])
    return build(case, [p.copy("K") for p in params]), build(case, schuss.pack(params))


def same(opt, packed):
    for group, own in zip(opt.param_groups, packed.param_groups, strict=True):
        assert_same(own["params"], group["params"])
    assert_same(list(states(packed).values()), list(states(opt).values()))
    assert_same(list(shared(packed).values()), list(shared(opt).values()))


@sampled_cases_but(is_newton)
def test_packed_parameters_have_the_same_bits(case):
    opt, packed = both(case)
    for t in range(1, 6):
        grads = grads_of(t, SHAPES)
        for own in (opt, packed):
            for buffer, g in zip(own.grads, grads, strict=True):
                buffer[...] = g
            if t == 3:  # one is left out, which parts its neighbours
                own.step([None if i == 4 else g for i, g in enumerate(own.grads)], zero_grads=True)
            elif t == 4:  # gradients that lie elsewhere, and one of another type
                own.step([g.astype(F32) if i == 1 else g for i, g in enumerate(grads)])
            elif t == 2:  # the optimizer's own, passed as others are
                own.step(own.grads, grad_scale=2.0)
            else:
                own.step(grad_scale=2.0, zero_grads=t == 1)
        assert opt.grad_norm == packed.grad_norm
    same(opt, packed)


OPTIONS = [{}, {"max_grad_norm": 0.1}, {"state_dtype": "int8"}, {"state_dtype": "int8", "state_rounding": "nearest"}]


@each_dtype
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())) or "plain")
def test_dtypes_and_threads(dtype, threads, options):
    before = schuss.get_num_threads()
    schuss.set_num_threads(threads)
    try:
        # Partial blocks of int8 states too, alone and behind whole ones.
        params = [p for k in range(40) for p in params_of([*SHAPES, (300,), (100,), (16,), (257,)], dtype, seed=k)]
        opt = schuss.AdamW([p.copy() for p in params], **options)
        packed = schuss.AdamW(schuss.pack(params), **options)
        for t in range(3):
            for own in (opt, packed):
                for k, buffer in enumerate(own.grads):
                    buffer[...] = grads_of(t, [buffer.shape], F32, seed=k)[0]
                own.step()
            assert opt.grad_norm == packed.grad_norm
        same(opt, packed)
    finally:
        schuss.set_num_threads(before)


def test_the_structure_and_the_block():
    one, other = np.arange(6.0).reshape(2, 3), np.arange(4.0, dtype=np.float32)
    given = {"b": [one.T, None], "a": (other[::2], np.full((), 3.0))}
    packed = schuss.pack(given)
    assert list(packed) == ["b", "a"] and packed["b"][1] is None and type(packed["a"]) is tuple
    for got, want in zip(leaves(packed), leaves(given), strict=True):
        if want is not None:
            assert_same([got], [want])
            assert got.flags.writeable and got is not want
    a, b = packed["a"][1], packed["b"][0]
    assert b.flags.f_contiguous and b.ctypes.data == a.ctypes.data + 8, "in the order in which arrays are numbered"
    assert one[0, 0] == 0 and packed["b"][0].base is not None
    with pytest.raises(ValueError, match="does not own its data"):
        packed["b"][0].resize(1)
    groups = schuss.pack([{"params": {"w": np.ones(2)}, "lr": 0.5}, {"params": (p for p in [np.ones(3)])}])
    opt = schuss.SGD(groups, lr=0.1)
    assert [group["lr"] for group in opt.param_groups] == [0.5, 0.1]
    assert groups[1]["params"][0].ctypes.data == groups[0]["params"]["w"].ctypes.data + 16


def test_gradients_and_states_are_neighbours_too():
    opt = schuss.Adam(schuss.pack([np.ones(3, np.float32), np.ones(5, np.float32)]))
    for first, second in (opt.grads, *opt.state_dict()["state"][0].values()):
        assert second.ctypes.data == first.ctypes.data + first.nbytes
    opt.add_param_group({"params": np.ones(4)})
    assert opt.step([[np.ones(3), np.ones(5)], np.ones(4)])
    assert all(not leaf.any() for leaf in leaves(opt.grads))


def test_checkpoints_of_packed_and_separate_arrays(tmp_path):
    params = params_of(SHAPES)
    opt = schuss.AdamW(schuss.pack(params))
    opt.step(grads_of(1, SHAPES))
    schuss.save(tmp_path / "opt", opt)
    other = schuss.AdamW(params)
    schuss.load(tmp_path / "opt", other)
    opt.step(grads_of(2, SHAPES))
    other.step(grads_of(2, SHAPES))
    assert_same(snapshot(other)[0], snapshot(opt)[0])


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_mixed_dtypes_are_sorted(dtype):
    params = [np.ones(3), np.ones(2, dtype), np.ones(4)]
    a, b, c = schuss.pack(params)
    assert (a.dtype, b.dtype, c.dtype) == (F64, dtype, F64)
    if dtype != F64:
        assert c.ctypes.data == a.ctypes.data + a.nbytes


CHANGES = {
    "read-only": lambda p: setattr(p.flags, "writeable", False),
    "retyped": lambda p: setattr(p, "dtype", np.int64),
    "restrided": lambda p: setattr(p, "strides", (0,) * p.ndim),
    "reshaped": lambda p: setattr(p, "shape", (3, 2)),
    "re-pointed": lambda p: p.__setstate__((1, p.shape, p.dtype, False, bytes(p.nbytes))),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy deprecates setting array attributes
@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
@pytest.mark.parametrize("shape", [(6,), (2, 3)])
@pytest.mark.parametrize("own", [True, False])
def test_a_view_that_changes_is_noticed(change, shape, own):
    params = schuss.pack([np.ones(shape) for _ in range(300)])
    opt = schuss.Adam(params)
    grads = opt.grads if own else [np.ones(shape) for _ in range(300)]
    step = opt.step if own else lambda: opt.step(grads)
    assert step() and step()
    before = [p.copy() for p in params]
    change(params[299])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^params\[299\] was resized, re-pointed, retyped or made read-only"):
            step()
    assert_same(params[:299], before[:299])
    assert opt.step_count == 2


@pytest.mark.parametrize("change", [CHANGES["read-only"], CHANGES["re-pointed"]], ids=["read-only", "re-pointed"])
@pytest.mark.parametrize("structure", [list, lambda arrays: {str(i): p for i, p in enumerate(arrays)}])
def test_views_of_thousands_are_looked_at_in_turn(structure, change):
    params = schuss.pack(structure([np.zeros(6) for _ in range(2000)]))
    views = leaves(params)
    opt = schuss.SGD(params, lr=1.0)
    for g in leaves(opt.grads):
        g[...] = 1.0
    assert opt.step() and opt.step()
    block = views[0].base[views[1700].ctypes.data - views[0].base.ctypes.data :][:48].view(np.float64)
    assert block[0] == views[1700][0] == -2.0
    change(views[1700])
    taken = 0
    with pytest.raises(ValueError, match=r"^params\[.*1700.*\] was resized, re-pointed, retyped or made read-only"):
        while taken < 4:
            taken += opt.step()
    assert list(block) == [-2.0 - taken] * 6 and opt.step_count == 2 + taken


def test_replaced_arrays_and_gradients_of_many():
    params = schuss.pack([np.zeros(2) for _ in range(300)])
    opt = schuss.SGD(params, lr=1.0)
    for g in opt.grads:
        g[...] = 1.0
    assert opt.step() and opt.step()
    kept, params[299] = params[299], np.zeros(2)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^params\[299\] is not the array that this optimizer updates"):
            opt.step()
    params[299] = kept
    opt.grads[298] = np.full(2, 3.0)
    assert opt.step()
    assert [p[0] for p in params[297:]] == [-3.0, -5.0, -3.0]
    params.append(np.zeros(2))
    assert opt.step() and params[299][1] == -4.0 and params[300][0] == 0.0


def test_wrong_calls():
    w = np.ones(3)
    for call, error, message in [
        (lambda: schuss.pack([w, w]), ValueError, "params[1] is the same memory as params[0]"),
        (lambda: schuss.pack({"w": 1.0}), TypeError, "params['w'] is a float, not a NumPy array"),
        (lambda: schuss.pack([{"params": [np.ones(2, int)]}]), TypeError, "params[0]['params'][0] has dtype int64"),
        (lambda: schuss.pack([{"params": [w]}, [w]]), TypeError, "params[1] must be a dict with a 'params' key, like"),
    ]:
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value).startswith(message)
    with refused(TypeError, "pack() takes 1 positional argument but 2 were given"):
        schuss.pack([w], [w])
    assert schuss.pack([]) == [] and schuss.pack(None) is None
