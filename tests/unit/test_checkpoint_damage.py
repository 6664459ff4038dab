"""A checkpoint file that does not fit or is damaged is rejected with a reason, and changes nothing."""

import copy
import json
import math
import random
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
from helpers import F32, assert_same, snapshot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import schuss

REFUSALS = (ValueError, TypeError, OSError)


def params(seed=1):
    rng = np.random.default_rng(seed)
    a, b, c = rng.standard_normal(3).astype(F32), rng.standard_normal((2, 3)), rng.standard_normal(2)
    return [{"params": {"a": a, 1: [b]}}, {"params": c, "decay_form": "independent"}]


def made(seed=2, kind=schuss.AdamW, groups=None, **more):
    """An optimizer after one step."""
    groups = params(seed) if groups is None else groups
    opt = kind(groups, **{"lr": 0.1, "max_grad_norm": 2.0} | more)
    for g in [opt.grads[0]["a"], opt.grads[0][1][0]]:
        g.fill(0.5)
    opt.step()
    return opt


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A file with parameters, after three steps."""
    path = tmp_path_factory.mktemp("original") / "file"
    opt = made(seed=1)
    opt.step()
    opt.step()
    schuss.save(path, opt)
    return path


def contents(path):
    with safetensors.safe_open(path, "numpy") as file:
        return safetensors.numpy.load_file(path), json.loads(file.metadata()["schuss"])


def write(path, tensors, metadata):
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    safetensors.numpy.save_file(tensors, path, metadata={"schuss": text})


def everything(opt):
    hypers = [{name: value for name, value in group.items() if name != "params"} for group in opt.param_groups]
    return snapshot(opt), (hypers, opt.max_grad_norm, opt.nonfinite)


def load(path, opt, include_params=True):
    """Loads the file. If that fails, checks that nothing has changed, and returns the error."""
    before = everything(opt)
    try:
        schuss.load(path, opt, include_params=include_params)
    except REFUSALS as error:
        after = everything(opt)
        assert after[1] == before[1]
        assert after[0][1] == before[0][1]
        assert_same(after[0][0], before[0][0])
        return error
    return None


def test_the_original_fits(original):
    opt = made()
    assert load(original, opt) is None
    assert opt.step_count == 3


# Optimizers that the file does not fit.


def with_array(array, *path):
    """The groups with one array replaced."""
    groups = params(2)
    entry = groups
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = array
    return groups


STRUCTURE = "was saved for parameters of another structure than this optimizer's"
OTHERS = {
    "another class": (lambda: schuss.Adam(with_array({"params": np.ones(2)}, 1)), "this is the state of 'AdamW', but"),
    "a shape": (lambda: made(groups=with_array(np.ones(4, F32), 0, "params", "a")), STRUCTURE),
    "a transposed shape": (lambda: made(groups=with_array(np.ones((3, 2)), 0, "params", 1, 0)), STRUCTURE),
    "a dtype": (lambda: made(groups=with_array(np.ones(3), 0, "params", "a")), STRUCTURE),
    "a dtype with the same state": (lambda: made(groups=with_array(np.ones(3, "f2"), 0, "params", "a")), STRUCTURE),
    "a key too many": (lambda: made(groups=with_array(np.ones(3), 0, "params", "b")), STRUCTURE),
    "a list entry too many": (
        lambda: made(groups=with_array([np.ones((2, 3)), np.ones(3)], 0, "params", 1)),
        STRUCTURE,
    ),
    "an array for a list": (lambda: schuss.AdamW(with_array(np.ones((2, 3)), 0, "params", 1)), STRUCTURE),
    "a key of another type": (
        lambda: schuss.AdamW([{"params": {"a": np.ones(3, F32), "1": [np.ones((2, 3))]}}, params()[1]]),
        STRUCTURE,
    ),
    "a group too few": (lambda: made(groups=params()[:1]), STRUCTURE),
    "no groups": (lambda: schuss.AdamW([np.ones(3, F32)]), STRUCTURE),
    "amsgrad": (lambda: made(amsgrad=True), "amsgrad cannot change from True to False"),
}


@pytest.mark.parametrize(("make", "message"), OTHERS.values(), ids=list(OTHERS))
def test_another_optimizer(make, message, original):
    for include_params in (False, True):
        error = load(original, make(), include_params)
        assert type(error) is ValueError and message in str(error)


def test_missing_or_read_only_parameters(path):
    schuss.save(path, made(seed=1), include_params=False)
    opt = made()
    words = "holds no parameters: restore them yourself, then load the state with include_params=False"
    assert str(load(path, opt)) == f"{path} {words}"
    assert load(path, opt, include_params=False) is None
    schuss.save(path, opt)
    opt.param_groups[1]["params"][0].flags.writeable = False
    opt.param_groups[0]["params"][0][:] = 7.0
    assert str(load(path, opt)).startswith("param_groups[1]['params'] is read-only; ")


def test_the_structure_that_differs_is_named(path):
    def save_and_load(saved, own):
        schuss.save(path, schuss.SGD(saved))
        message, advice = str(load(path, schuss.SGD(own), include_params=False)).split("; ")
        assert advice == "with strict=False what fits is loaded"
        return message

    many = {f"w{i}": np.ones(3) for i in range(100)}
    one, two = np.ones(3), np.ones(3)
    text = f"{path} {STRUCTURE}: "
    assert (
        save_and_load(many, many | {"w57": np.ones(4)})
        == text + "params['w57'] is float64[3] there and float64[4] here"
    )
    assert save_and_load({"a": [one]}, {"a": [one, two]}) == text + "params['a'] has 1 entries there and 2 here"
    assert save_and_load({"a": [one]}, {"a": one}) == text + "params['a'] is a list there and float64[3] here"
    assert save_and_load({"a": one, 1: two}, {"a": one}) == text + "params has the key 1 there only"
    assert save_and_load({"a": one}, {"a": one, "1": two}) == text + "params has the key '1' here only"
    groups = [{"params": one}, {"params": [np.ones(2)]}]
    assert save_and_load([groups[0]] * 1 + groups[1:], [groups[1]]) == text + "2 groups there and 1 here"
    found = save_and_load(groups, [groups[0], {"params": [np.ones(2, F32)]}])
    assert found == text + "param_groups[1]['params'][0] is float64[2] there and float32[2] here"


# Files that are not checkpoints.


def test_files_that_are_not_checkpoints(path):
    rng = random.Random(3)
    foreign = {"m[0]['a']": np.ones(3, F32)}
    path.write_bytes(b"")
    assert "is not a whole safetensors file" in str(load(path, made()))
    for n in (1, 7, 8, 9, 100, 10_000):
        path.write_bytes(rng.randbytes(n))
        assert type(load(path, made())) is ValueError
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    assert type(load(path, made())) is ValueError
    for metadata in (None, {}, {"format": "pt"}):
        safetensors.numpy.save_file(foreign, path, metadata=metadata)
        assert "is not a checkpoint of schuss" in str(load(path, made()))


def test_a_header_far_too_long_is_not_read(path):
    """Nine megabytes of brackets took a quarter of a gigabyte."""
    text = "[" * 9_000_000
    header = json.dumps({"__metadata__": {"schuss": text}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    tracemalloc.start()
    assert "far too many for this optimizer" in str(load(path, made()))
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


HEADERS = {
    "a list": b"[]",
    "a number": b"1",
    "a string": b'"m"',
    "deep": b'{"m": ' + b"[" * 100_000,
    "no offsets": b'{"m": {"dtype": "F32", "shape": [3]}}',
    "one offset": b'{"m": {"dtype": "F32", "shape": [3], "data_offsets": [0]}}',
    "broken offsets": b'{"m": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12.5]}}',
    "true offsets": b'{"m": {"dtype": "F32", "shape": [3], "data_offsets": [false, true]}}',
    "backwards": b'{"m": {"dtype": "F32", "shape": [3], "data_offsets": [12, 0]}}',
    "below": b'{"m": {"dtype": "F32", "shape": [3], "data_offsets": [-12, 0]}}',
    "far": b'{"m": {"dtype": "F32", "shape": [3], "data_offsets": [0, 1' + b"0" * 400 + b"]}}",
    "no shape": b'{"m": {"dtype": "F32", "shape": 3, "data_offsets": [0, 12]}}',
    "a tensor that is none": b'{"m": 3}',
    "metadata that is none": b'{"__metadata__": [1]}',
    "text that is none": b'{"__metadata__": {"schuss": 1}}',
    "no UTF-8": b'{"\xff": 1}',
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=list(HEADERS))
def test_headers(header, path):
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(12 if b"12" in header else 0))
    error = load(path, made())
    assert type(error) is ValueError and str(path) in str(error)


def test_truncated_and_damaged_files(original, path):
    content = original.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for n in [*range(0, header, 7), *range(header, len(content))]:
        path.write_bytes(content[:n])
        assert type(load(path, made())) is ValueError, n
    path.write_bytes(content + b"more")
    assert type(load(path, made())) is ValueError
    rng = random.Random(4)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(header)] = rng.randrange(256)
        path.write_bytes(damaged)
        load(path, made())


TENSORS = {
    "one missing": lambda t: {name: a for name, a in t.items() if name != "v[0][1][0]"},
    "a parameter missing": lambda t: {name: a for name, a in t.items() if name != "params[1]"},
    "another shape": lambda t: t | {"v[0]['a']": np.ones((3, 1), F32)},
    "another length": lambda t: t | {"m[1]": np.ones(3)},
    "a scalar": lambda t: t | {"m[1]": np.ones(())},
    "another float": lambda t: t | {"v[0]['a']": np.ones(3)},
    "integers": lambda t: t | {"v[0]['a']": np.ones(3, np.int32)},
    "booleans": lambda t: t | {"params[1]": np.ones(2, bool)},
}


@pytest.mark.parametrize("change", TENSORS.values(), ids=list(TENSORS))
def test_other_tensors(change, original, path):
    tensors, metadata = contents(original)
    write(path, change(tensors), metadata)
    error = load(path, made())
    assert type(error) is ValueError and str(path) in str(error)


def test_additional_tensors_are_ignored(original, path):
    tensors, metadata = contents(original)
    write(path, tensors | {"model": np.ones(5)}, metadata)
    assert load(path, made()) is None


# Changed metadata.


def places(value, place=()):
    """The path of every node of a JSON value."""
    yield place
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*place, key))


def put(value, place, new):
    if not place:
        return new
    value = copy.copy(value)
    value[place[0]] = put(value[place[0]], place[1:], new)
    return value


def removed(value, place):
    value = copy.copy(value)
    if len(place) > 1:
        value[place[0]] = removed(value[place[0]], place[1:])
    else:
        del value[place[0]]
    return value


class Loader:
    """Loads files with changed metadata; makes a new optimizer after each file that loads."""

    def __init__(self, original, path):
        self.tensors, self.metadata = contents(original)
        self.path, self.opt, self.taken = path, made(), 0

    def __call__(self, metadata):
        write(self.path, self.tensors, metadata)
        if load(self.path, self.opt) is None:
            assert self.opt.step() is True
            assert all(np.isfinite(group["lr"]) for group in self.opt.param_groups)
            self.opt, self.taken = made(), self.taken + 1


ODD = [None, True, False, 0, -1, 2, 2**63, 2**64, 10**400, 1.5, -0.5, 1e-400, math.nan, math.inf, -math.inf]
ODD += [
    "",
    "x",
    "schedule",
    "skip",
    "AdamW",
    [],
    [0.5],
    [0.5, 0.5],
    [None, None],
    [[]],
    {},
    {"lr": 1},
    {"schedule": {}},
]


def test_metadata_with_one_change(original, path):
    """Each node is replaced by each unusual value, and removed."""
    loader = Loader(original, path)
    count = 0
    for place in places(loader.metadata):
        for value in ODD:
            loader(put(loader.metadata, place, value))
            count += 1
        if place:
            loader(removed(loader.metadata, place))
            count += 1
    assert 0 < loader.taken < count / 5


TEXTS = [
    "",
    "x",
    "{",
    "null",
    "[]",
    '"AdamW"',
    "NaN",
    "1e999",
    "[" * 100_000,
    '{"format": 1}',
    '{"format": 2}',
    "\ufeff{}",
]
TEXTS.append('{"format": 1, "x": ' * 900 + "1" + "}" * 900)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20] or "empty")
def test_other_metadata(text, original, path):
    tensors, _ = contents(original)
    write(path, tensors, text)
    error = load(path, made())
    assert type(error) is ValueError and str(path) in str(error)


def test_metadata_out_of_range(original, path):
    """Hyperparameters from a file are checked like all others, by name."""
    tensors, metadata = contents(original)
    for name, value in [("lr", -1.0), ("betas", [0.9, 1.0]), ("eps", math.nan), ("maximize", 1), ("decay_form", "l2")]:
        write(path, tensors, put(metadata, ("param_groups", 1, name), value))
        error = load(path, made())
        assert str(error).startswith(f"state['param_groups'][1]: {name}")
    for name, value in [("max_grad_norm", 0), ("nonfinite", "maybe"), ("step", -1), ("skipped_steps", 0.5)]:
        write(path, tensors, put(metadata, (name,), value))
        assert str(load(path, made())).startswith(f"state['{name}'] must be")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_metadata_with_random_changes(original, path, data):
    loader = Loader(original, path)
    metadata = loader.metadata
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(list(places(metadata))))
        metadata = put(metadata, place, data.draw(JSON))
    loader(metadata)
