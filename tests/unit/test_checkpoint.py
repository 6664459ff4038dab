"""Training continues bit for bit from a file. Damaged ones and those of others are in test_checkpoint_damage.py."""

import copy
import json
import math

import numpy as np
import pytest
import safetensors.numpy
from cases import schedule
from helpers import (
    F32,
    F64,
    assert_same,
    assert_unchanged,
    each_dtype,
    each_optimizer,
    grads_of,
    leaves,
    parameters,
    params_of,
    sampled_cases,
    snapshot,
)
from nested import SHAPES, each_other_dtype, start, take

import schuss


@sampled_cases
@pytest.mark.parametrize("include_params", [False, True])
def test_resume(case, include_params, path):
    opt = start(case)
    take(opt, range(1, 5))
    before = snapshot(opt)
    schuss.save(path, opt, include_params=include_params)
    assert_unchanged(opt, before, "saving changes nothing")
    take(opt, range(5, 9))
    other = start(case, seed=2)
    if not include_params:
        for p, old in zip(parameters(other), before[0], strict=False):
            p[...] = old
    schuss.load(path, other, include_params=include_params)
    assert_unchanged(other, before, "just loaded")
    take(other, range(5, 9))
    assert_unchanged(other, snapshot(opt), "four steps later")


@each_optimizer
@each_other_dtype
def test_dtypes(case, dtype, path):
    opt, other = start(case, dtype), start(case, dtype, seed=2)
    take(opt, range(1, 5), dtype)
    schuss.save(path, opt)
    schuss.load(path, other)
    assert_unchanged(other, snapshot(opt))


@sampled_cases
def test_parameters_are_left_alone_on_request(case, path):
    opt, other = start(case), start(case, seed=2)
    take(opt, [1])
    schuss.save(path, opt)
    kept = copy.deepcopy(parameters(other))
    schuss.load(path, other, include_params=False)
    assert_same(parameters(other), kept)
    assert other.step_count == 1


def test_groups_and_options(path):
    """Options of groups, assigned values and step counts are saved."""

    def fresh(seed):
        a, b, c, _ = params_of(SHAPES, F32, seed)
        return schuss.AdamW([{"params": {"w": a}}, {"params": b, "decay_form": "independent"}], lr=0.5), c

    grads = grads_of(1, SHAPES, F32)
    opt, late = fresh(1)
    opt.step([{"w": grads[0]}, grads[1]])
    opt.add_param_group({"params": [late], "betas": (0.5, 0.75)})
    opt.param_groups[1]["lr"] = 0.0
    opt.param_groups[0].update(lr=0.25, maximize=True)
    opt.max_grad_norm, opt.nonfinite = 2.0, "skip"
    all_grads = [{"w": grads[0]}, grads[1], [grads[2]]]
    assert opt.step(all_grads) and not opt.step([{"w": grads[0] * np.float32("nan")}, grads[1], [grads[2]]])
    schuss.save(path, opt)
    other, late = fresh(2)
    other.add_param_group({"params": [late]})
    schuss.load(path, other)
    assert other.state_dict()["param_groups"] == opt.state_dict()["param_groups"]
    assert (other.max_grad_norm, other.nonfinite, other.skipped_steps) == (2.0, "skip", 1)
    for o in (opt, other):
        o.param_groups[1]["lr"] = 0.125
        assert o.step(all_grads)
    assert_unchanged(other, snapshot(opt))
    other.max_grad_norm = math.inf
    schuss.save(path, other)
    schuss.load(path, opt)
    assert opt.max_grad_norm == math.inf


def test_the_loading_optimizer_keeps_its_schedule(path):
    """Files do not store schedules: an optimizer keeps its own, and a file that needs one says so."""
    opt, other, without = (schuss.Adam(np.ones(3), lr=lr) for lr in (schedule, schedule, 0.1))
    opt.step(np.ones(3))
    schuss.save(path, opt)
    schuss.load(path, other)
    assert other.param_groups[0]["lr"] is schedule and other.step_count == 1
    with pytest.raises(ValueError, match="was saved with a learning-rate schedule"):
        schuss.load(path, without)
    schuss.save(path, without)
    schuss.load(path, other)
    assert other.param_groups[0]["lr"] is schedule and other.step_count == 0


@each_dtype
def test_the_file_is_safetensors_and_nothing_else(dtype, path):
    opt = schuss.Adam({"w": np.ones((2, 3), dtype), 1: np.ones((), dtype)})
    schuss.save(path, opt)
    tensors = safetensors.numpy.load_file(path)
    names = {f"{name}[0][{key!r}]" for name in ("params", "m", "v") for key in ("w", 1)}
    assert set(tensors) == names
    assert_same([tensors["params[0]['w']"]], [np.ones((2, 3), dtype)])
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert len(content) == 8 + length + sum(a.nbytes for a in tensors.values())
    metadata = json.loads(header["__metadata__"]["schuss"])
    assert metadata["optimizer"] == "Adam" and metadata["param_groups"][0]["betas"] == [0.9, 0.999]
    schuss.save(path, opt)
    assert path.read_bytes() == content, "the same state is the same file"


class Kept:
    """A schedule with a state."""

    def __init__(self, state):
        self.state = state

    def __call__(self, step):
        return 0.1

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_states_of_schedules(path):
    """NumPy's scalars are saved as numbers; the message about anything else says whose state it is."""
    schuss.save(path, schuss.Adam(np.ones(3), lr=Kept({"best": np.float32(0.5), "at": [np.int64(3)]})))
    opt = schuss.Adam(np.ones(3), lr=Kept({}))
    schuss.load(path, opt)
    assert opt.param_groups[0]["lr"].state == {"best": 0.5, "at": [3]}
    content = path.read_bytes()
    loop = []
    loop.append(loop)
    for state in ({"best": np.ones(2)}, {"best": {1}}, loop):
        for name in ("lr", "weight_decay"):
            groups = [{"params": np.ones(3)}, {"params": np.ones(3), name: Kept(state)}]
            message = rf"^the state of the schedule in param_groups\[1\]\['{name}'\] cannot be saved: "
            with pytest.raises(TypeError, match=message):
                schuss.save(path, schuss.Adam(groups))
    assert path.read_bytes() == content


def test_structures_with_none(path):
    """None in the place of an array is part of the structure."""
    make = lambda value, b=None: schuss.Adam({"w": np.full(3, value), "b": b, "c": [None, {}]})  # noqa: E731
    one, other = make(1.0), make(2.0)
    one.step({"w": np.ones(3), "b": None, "c": [None, {}]})
    schuss.save(path, one)
    schuss.load(path, other)
    assert_unchanged(other, snapshot(one))
    with pytest.raises(ValueError, match=r"params\['b'\] is None there and float64\[1\] here; with"):
        schuss.load(path, make(2.0, np.ones(1)))


def test_equal_keys_are_equal(path):
    """Also if they print differently."""
    make = lambda *keys: schuss.Adam({key: np.full(3, i, F64) for i, key in enumerate(keys)})  # noqa: E731
    one, other = make(3, (1, 2), "a", 0.5), make(np.int64(3), (np.uint8(1), 2.0), np.str_("a"), np.float32(0.5))
    for leaf in leaves(one.grads):
        leaf[...] = 1.0
    one.step()
    schuss.save(path, one)
    schuss.load(path, other)
    assert_unchanged(other, snapshot(one))
    other.load_state_dict(one.state_dict())
    with pytest.raises(TypeError, match=r"^params\[3\] is a str, not a NumPy array"):
        schuss.Adam({np.int64(3): "a"})
