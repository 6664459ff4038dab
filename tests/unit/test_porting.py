"""Code that was not written for the package: arrays that are replaced, other shapes and types, and what is advised."""

import copy
import gc
import pickle
import weakref
from collections import OrderedDict, defaultdict
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import assert_unchanged, refused, snapshot
from porting_tables import TABLES

import schuss

REPLACED = (
    " is not the array that this optimizer updates: it was replaced. Write into the array in place, {0}[...] = values, "
    "or make a new optimizer"
)


@pytest.mark.parametrize("wrap", [lambda opt: opt, schuss.Lookahead])
def test_a_replaced_array_is_noticed(wrap):
    params = {"w": np.ones(2), "layers": [np.ones(3), (np.ones(1), None)]}
    opt = wrap(schuss.Adam(params, lr=0.1))
    grads = {"w": np.ones(2), "layers": [np.ones(3), (np.ones(1), None)]}
    assert opt.step(grads)
    before = snapshot(opt)
    kept, params["w"] = params["w"], params["w"] * 1.0
    with refused(ValueError, "params['w']" + REPLACED.format("params['w']")):
        opt.step(grads)
    assert_unchanged(opt, before)
    params["w"] = kept
    assert opt.step(grads)
    params["layers"][0] = np.ones(3)
    with refused(ValueError, "params['layers'][0]" + REPLACED.format("params['layers'][0]")):
        opt.step(grads)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_replaced_list_or_dict_of_arrays_is_noticed(number):
    """As of code that makes a whole layer anew; one with the same arrays is fine."""
    params = {"in": {"w": np.ones(2)}, "out": [np.ones(3), (np.ones(1), None)]}
    opt = schuss.SGD(params, lr=0.1)

    def stepped_by_arrays():
        with opt.stepping() as update:
            update(opt._params[0], np.ones(opt._params[0].shape))

    grads = {"in": {"w": np.ones(2)}, "out": [np.ones(3), (np.ones(1), None)]}
    calls = [lambda: opt.step(grads), lambda: opt.step_rows(grads), stepped_by_arrays]
    for call in calls:
        call()
    container, key, new, place = [
        (params, "in", {"w": params["in"]["w"] * 1.0}, "params['in']['w']"),
        (params, "out", [np.ones(3), params["out"][1]], "params['out'][0]"),
        (params["out"], 1, (np.ones(1), None), "params['out'][1][0]"),
    ][number]
    before = snapshot(opt)
    kept, container[key] = container[key], new
    for call in calls:
        with refused(ValueError, place + REPLACED.format(place)):
            call()
    assert_unchanged(opt, before)
    container[key] = copy.copy(kept)
    for call in calls:
        call()
    assert opt.step_count == 6


def test_replaced_arrays_of_groups():
    one, other = [np.ones(2)], {"b": np.ones(3)}
    opt = schuss.SGD([{"params": one}])
    opt.add_param_group({"params": other})
    assert opt.step([[np.ones(2)], {"b": np.ones(3)}])
    other["b"] = np.ones(3)
    place = "param_groups[1]['params']['b']"
    with refused(ValueError, place + REPLACED.format(place)):
        opt.step([[np.ones(2)], {"b": np.ones(3)}])


@pytest.mark.parametrize("steps", [0, 1, 17, 33])
def test_one_of_many_replaced_arrays_is_noticed_at_the_next_step(steps):
    params = {f"w{i}": np.ones(2) for i in range(300)}
    grads = {name: np.ones(2) for name in params}
    opt = schuss.SGD(params)
    for _ in range(steps):
        opt.step(grads)
    params["w299"] = np.ones(2)
    for _ in range(2):
        with refused(ValueError, "params['w299']" + REPLACED.format("params['w299']")):
            opt.step(grads)


@pytest.mark.parametrize("value", [np.float64(1.0), memoryview(np.ones(2)), np.ones(2)])
@pytest.mark.parametrize("change", ["more", "view", "removed"])
def test_it_is_noticed_after_other_changes_of_the_structure(change, value):
    """Such as a NumPy scalar, which arithmetic with an array of no dimension results in."""
    params = {"b": np.array(1.0), "w": np.ones(2)}
    opt = schuss.SGD(params)
    grads = {"b": np.array(1.0), "w": np.ones(2)}
    if change == "more":
        params["more"] = 3
    elif change == "view":
        params["b"] = params["b"].view()
    else:
        del params["w"]
    assert opt.step(grads) and opt.step(grads)
    params["b"] = value
    with refused(ValueError, "params['b']" + REPLACED.format("params['b']")):
        opt.step(grads)


STEPS = {
    schuss.NAG: lambda opt: opt.step(lambda: [np.ones(2)]),
    schuss.Newton: lambda opt: opt.step([np.ones(2)], np.eye(2)),
    schuss.LBFGS: lambda opt: opt.step(lambda: (1.0, [np.ones(2)])),
    schuss.ScheduleFreeSGD: lambda opt: opt.eval(),
    schuss.SophiaG: lambda opt: opt.update_hessian([np.ones(2)]),
    schuss.Lookahead: lambda opt: opt.evaluate().__enter__(),
    schuss.EMA: lambda opt: opt.swap().__enter__(),
}


@pytest.mark.parametrize("kind", STEPS)
def test_it_is_noticed_by_whatever_takes_the_place_of_a_step(kind):
    params = [np.ones(2)]
    opt = kind(schuss.SGD(params) if kind in (schuss.Lookahead, schuss.EMA) else params)
    before = snapshot(opt)
    params[0] = np.ones(2)
    with refused(ValueError, "params[0]" + REPLACED.format("params[0]")):
        STEPS[kind](opt)
    assert_unchanged(opt, before)


def test_other_changes_of_the_structure_are_none_of_the_optimizers_business():
    w, b = np.ones((2, 3)), np.ones(2)
    params, layers = {"w": w}, [b]
    opt = schuss.SGD([{"params": params}, {"params": layers}], lr=0.5)
    grads = [{"w": np.ones((2, 3))}, [np.ones(2)]]
    params["more"] = np.ones(3)
    layers.append(np.ones(3))
    assert opt.step(grads)
    params["w"] = w.view()  # the same memory
    layers.clear()
    assert opt.step(grads) and opt.step(grads)
    assert (w == -0.5).all() and (b == -0.5).all()
    ordered = OrderedDict(w=w)
    opt = schuss.SGD(ordered)
    assert opt.step({"w": np.ones((2, 3))})


def test_what_parameters_were_given_in_is_collected_with_the_optimizer():
    class Watched(list):
        pass

    watched = Watched([np.ones(2)])
    params = {"layers": watched}
    params["self"] = schuss.SGD({"w": watched[0], "rest": [np.ones(1)]})
    alive = weakref.ref(params["self"])
    del params, watched
    gc.collect()
    assert alive() is None


def test_a_float_is_the_gradient_of_a_scalar():
    b = np.zeros(())
    opt = schuss.SGD({"b": b}, lr=0.5)
    assert opt.step({"b": 2.0}) and opt.step({"b": 1})
    assert b == -1.5
    with refused(
        TypeError, "grads['b'] is a bool, not an array like params['b']; pass np.array(..., dtype=np.float64)"
    ):
        opt.step({"b": True})
    with refused(TypeError, "grads is a float, not an array like params; pass np.array(..., dtype=np.float32)"):
        schuss.SGD(np.zeros(3, np.float32)).step(1.0)


@pytest.mark.parametrize(("own", "given"), [((3,), (3, 1)), ((3,), (1, 3)), ((3, 1), (3,)), ((), (1,))])
def test_shapes_that_differ_by_axes_of_length_one(own, given):
    opt = schuss.SGD({"b": np.zeros(own)})
    message = (
        f"grads['b'] has shape {given}, but params['b'] has shape {own}; pass grads['b'].reshape(params['b'].shape)"
    )
    with refused(ValueError, message):
        opt.step({"b": np.zeros(given)})


def test_object_arrays():
    arrays = np.empty(2, object)
    arrays[:] = [np.ones(2), np.ones(3)]
    with pytest.raises(TypeError, match=r"\(ml_dtypes\): pass the arrays in it, list\(params\)"):
        schuss.SGD(arrays)
    opt = schuss.SGD(list(arrays))
    with refused(TypeError, "grads must be a list or tuple like params, got ndarray of shape (2,); pass list(grads)"):
        opt.step(arrays)


def test_slices_of_one_matrix():
    w = np.ones((4, 3))
    with pytest.raises(ValueError, match=r"; or list the array that it is a slice of, once$"):
        schuss.SGD([w[:, 0], w[:, 1]])


def test_layers_that_make_their_arrays_later():
    layers = {"w": None, "b": None}
    with pytest.raises(ValueError, match=r"if layers make theirs in the first forward pass, run one first$"):
        schuss.AdamW(layers)


ADVISED = [
    ("keras", "Muon", "fallback=True"),
    ("pytorch_optimizer", "LARS", "adapt=False, weight_decay=0.0"),
    ("pytorch_optimizer", "Lamb", "lr=lambda step: lr / (1 - 0.9 ** (step + 1))"),
    ("pytorch_optimizer", "Muon", "lr=3e-4, fallback=True"),
]


@pytest.mark.parametrize(("table", "peer", "advised"), ADVISED)
def test_options_that_remarks_of_the_porting_tables_advise_for_a_group(table, peer, advised):
    (row,) = [row for row in TABLES[table] if row.peer == peer]
    assert f"``{advised}``" in row.remark
    options, group = eval(f"dict({row.options})"), eval(f"dict({advised})", {"lr": 0.1})
    opt = schuss.OPTIMIZERS[row.name]([{"params": np.ones((2, 2))}, {"params": np.ones(3), **group}], **options)
    assert {name: opt.param_groups[1][name] for name in group} == group
    assert opt.step([np.ones((2, 2)), np.ones(3)])


class Layers(list):
    """A list of layers with methods, as hand-written code has."""


@pytest.mark.parametrize("kind", [dict, OrderedDict, lambda pairs: defaultdict(list, pairs)])
def test_arrays_replaced_in_containers_of_other_kinds(kind, tmp_path):
    """Also where the optimizer is saved, loaded, averaged or synchronized."""
    params = kind({"w": np.ones(2), "layers": Layers([np.ones(3)])})
    grads = {"w": np.ones(2), "layers": [np.ones(3)]}
    opt = schuss.Lookahead(schuss.SGD(params, lr=0.1))
    average = schuss.EMA(opt)
    if kind is OrderedDict:
        params.move_to_end("w")
    assert average.step(grads)
    schuss.save(tmp_path / "file", average)
    average.update()
    opt.sync()
    for place, container, key in [("['w']", params, "w"), ("['layers'][0]", params["layers"], 0)]:
        before = snapshot(average)
        kept, container[key] = container[key], container[key] * 5
        for call in (
            lambda: average.step(grads),
            lambda: opt.step(grads),
            lambda: schuss.save(tmp_path / "other", average),
            lambda: schuss.load(tmp_path / "file", average),
            average.update,
            opt.sync,
            lambda: average.swap().__enter__(),
        ):
            with refused(ValueError, f"params{place}" + REPLACED.format(f"params{place}")):
                call()
        assert_unchanged(average, before)
        container[key] = kept
    assert average.step(grads)


class Model(NamedTuple):
    """Parameters as JAX users have them."""

    w: np.ndarray
    b: Any


class Net(SimpleNamespace):
    """Parameters as attributes."""


def test_named_tuples_stay_what_they_are():
    packed = schuss.pack(Model(np.ones(2), {"x": np.ones(1)}))
    assert isinstance(packed, Model) and packed.b["x"].shape == (1,)
    opt = schuss.EMA(schuss.SGD(packed, lr=0.1))
    opt.grads.w[:] = 1.0
    opt.step()
    assert opt.average.w.shape == (2,)
    assert opt.step(Model(np.ones(2), {"x": np.ones(1)})) and opt.step((np.ones(2), {"x": np.ones(1)}))
    assert copy.deepcopy(opt).average.w.shape == (2,)

    class Here(NamedTuple):
        w: np.ndarray

    other = pickle.loads(pickle.dumps(schuss.SGD(Here(np.ones(2)), lr=0.1)))
    assert other.step(Here(np.ones(2))), "pickle would not find the class"


def test_arrays_in_attributes():
    with refused(
        TypeError,
        "params is a Net, not a NumPy array; pass vars(params), a dict of its arrays; dataclasses.asdict would copy "
        "them",
    ):
        schuss.SGD(Net(w=np.ones(2)))


class csr_matrix:
    """SciPy's: NumPy cannot read it."""

    def toarray(self):
        return np.ones((2, 2))


@pytest.mark.parametrize("method", ["step", "step_rows"])
def test_sparse_gradients(method):
    opt = schuss.SGD({"w": np.ones((2, 2))}, lr=0.1)
    with refused(
        TypeError,
        "grads['w'] is a csr_matrix, not an array like params['w']; pass grads['w'].toarray(), or to step_rows the "
        "indices and values of rows",
    ):
        getattr(opt, method)({"w": csr_matrix()})


def test_a_loss_as_an_array_beside_the_gradients():
    """As ``value_and_grad`` of JAX returns it. Two whole gradients in the place of one are no rows."""
    alone = "grads is a number and more; pass, or return from the closure, the gradients alone"
    for params in (np.ones(2), [np.ones(2)], {"w": np.ones(2)}):
        opt = schuss.SGD(params, lr=0.1)
        with refused(TypeError, alone):
            opt.step((np.array(3.0), copy.deepcopy(params)))
    with refused(TypeError, "grads is a list, not an array like params; pass np.array(..., dtype=np.float64)"):
        schuss.SGD(np.ones(2), lr=0.1).step([np.ones(2), np.ones(3)])
    one, other = np.array(1.0), np.ones(2)
    assert schuss.SGD((one, other), lr=1.0).step((np.array(1.0), np.ones(2))) and one == 0.0  # not a loss


def test_containers_that_convert_what_is_read():
    """Arrays that only reading gives are not taken for replaced ones."""

    class Lazy(dict):
        def __getitem__(self, key):
            return dict.__getitem__(self, key)[0]

    class LazyList(list):
        def __iter__(self):
            return (one[0] for one in list.__iter__(self))

        def __getitem__(self, i):
            return list.__getitem__(self, i)[0]

    for params, grads in [(Lazy(w=(np.ones(2),)), {"w": np.ones(2)}), (LazyList([(np.ones(2),)]), [np.ones(2)])]:
        opt = schuss.EMA(schuss.SGD(params, lr=0.1))
        assert opt.step(grads)
        opt.update()
        if isinstance(params, dict):
            dict.__setitem__(params, "other", (np.ones(1),))
            assert opt.step(grads)

    class Fields(tuple):
        _fields = ("w",)

    assert schuss.SGD(Fields([np.ones(2)]), lr=0.1).step((np.ones(2),))
