"""Checkpoint files resume bit for bit and are never partially written. Damage is in test_checkpoint_damage.py."""

import copy
import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from cases import schedule
from helpers import (
    F32,
    F64,
    assert_same,
    assert_unchanged,
    build,
    each_dtype,
    each_optimizer,
    grads_of,
    leaves,
    parameters,
    params_of,
    sampled_cases,
    snapshot,
)

import schuss
from schuss._arrays import atomic_files

SHAPES = [(33,), (5, 3), (), (0,)]
posix = pytest.mark.skipif(os.name != "posix", reason="needs links, permissions or limits")


def structure(arrays):
    """A nested structure with keys that are not strings, and an array in Fortran order."""
    a, b, c, d = arrays
    return {"a": a, 1: [np.asfortranarray(b)], "1": (c, {None: d}), (2, "x"): {}}


def start(case, dtype=F64, seed=1, **more):
    return build(case, structure(params_of(SHAPES, dtype, seed)), **more)


def take(opt, steps, dtype=F64):
    for t in steps:
        opt.step(structure(grads_of(t, SHAPES, dtype)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "opt.safetensors"


# Resuming.


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
@each_dtype
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


# The file.


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


def test_paths(tmp_path, monkeypatch):
    opt = schuss.Adam(np.ones(3))
    monkeypatch.chdir(tmp_path)
    for path in ["a", Path("b"), str(tmp_path / "c"), tmp_path / ("d" * 250), "ü 𝛽'", b"e"]:
        schuss.save(path, opt)
        schuss.load(path, opt)
    assert len(os.listdir(tmp_path)) == 6


@posix
def test_symbolic_links_and_permissions_are_kept(tmp_path):
    """Saving follows a symbolic link; a new file gets the default permissions, an existing one keeps its own."""
    opt, path, link = schuss.Adam(np.ones(3)), tmp_path / "file", tmp_path / "link"
    usual = tmp_path / "usual"
    usual.touch()
    schuss.save(path, opt)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)
    path.chmod(0o600)
    link.symlink_to(path)
    opt.step(np.ones(3))
    schuss.save(link, opt)
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o600
    other = schuss.Adam(np.ones(3))
    schuss.load(path, other)
    assert other.step_count == 1


WRITES = ["schuss.checkpoint.tensor_files.write", "os.fsync", "os.chmod", "os.replace"]


@pytest.mark.parametrize("broken", WRITES)
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failed_save_keeps_the_old_file(broken, error, path, monkeypatch):
    opt = schuss.Adam(np.ones(3))
    schuss.save(path, opt)
    content = path.read_bytes()
    opt.step(np.ones(3))
    before = snapshot(opt)

    def fail(*_args, **_kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises((OSError, KeyboardInterrupt)) as caught:
            schuss.save(path, opt)
    assert caught.value is error or str(caught.value) == f"{path} cannot be written: no space left"
    assert path.read_bytes() == content and os.listdir(path.parent) == [path.name]
    assert_unchanged(opt, before)


FULL = """
import os, resource, sys
import numpy as np, schuss
opt = schuss.Adam(np.ones(100_000))
schuss.save(sys.argv[1], opt)
content = open(sys.argv[1], "rb").read()
opt.step(np.ones(100_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    schuss.save(sys.argv[1], opt)
except OSError as error:
    print(error)
assert open(sys.argv[1], "rb").read() == content
"""


@posix
def test_a_full_disk(path):
    """A limit on the size of files simulates it."""
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path} cannot be written: ")
    assert os.listdir(path.parent) == [path.name]


def test_unsupported_keys_and_paths_are_refused(tmp_path):
    opt = schuss.Adam(np.ones(3))
    (tmp_path / "folder").mkdir()
    for path in [tmp_path / "none" / "file", tmp_path / "folder", os.devnull]:
        with pytest.raises(OSError):
            schuss.save(path, opt)
        with pytest.raises(OSError):
            schuss.load(path, opt)
    for path in [None, 3, opt]:
        with pytest.raises(TypeError):
            schuss.save(path, opt)
        with pytest.raises(TypeError):
            schuss.load(path, opt)
    assert os.listdir(tmp_path) == ["folder"] and not os.listdir(tmp_path / "folder")


# What else is in the folder, and other things than files.

KILLED = """
import os, signal, sys
import numpy as np, schuss, schuss.checkpoint

def write(file, *_):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

schuss.checkpoint.tensor_files.write = write
schuss.save(sys.argv[1], schuss.Adam(np.ones(3)))
"""


@posix
def test_what_a_killed_save_left_is_removed(path, monkeypatch):
    """By the next save to the same path; not what somebody is writing now, nor anything else."""
    opt = schuss.Adam(np.ones(3))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60)
    left = os.listdir(path.parent)
    assert len(left) == 1 and not path.exists(), "the second removed what the first had left"
    others = [f".{path.name}.best.0123456789abcdef.schuss.tmp", f".{path.name}.tmp", f".{path.name}.1.schuss.tmp"]
    for name in others:
        (path.parent / name).touch()
    real, nested = schuss.checkpoint.tensor_files.write, []

    def write(*args):
        if not nested:  # another save to the same path, before this one has written anything
            nested.append(True)
            schuss.save(path, schuss.Adam(np.ones(3)))
        real(*args)

    monkeypatch.setattr(schuss.checkpoint.tensor_files, "write", write)
    schuss.save(path, opt)
    assert sorted(os.listdir(path.parent)) == sorted([path.name, *others])


@posix
def test_saves_to_the_same_path_at_once(path, monkeypatch):
    """One that has just made its temporary file makes another, if a second save takes that for one that was left."""
    import fcntl

    opt = schuss.SGD(np.ones(3))
    real, cases = atomic_files._lock, ["removed", "about to be removed"]

    def lock(handle):
        if not cases:
            return real(handle)
        (new,) = path.parent.iterdir()
        with new.open() as found:
            fcntl.flock(found, fcntl.LOCK_EX)
            if cases.pop(0) == "removed":
                new.unlink()
                return None
            locked = real(handle)
            new.unlink()
            return locked

    monkeypatch.setattr(atomic_files, "_lock", lock)
    schuss.save(path, opt)
    assert not cases and list(path.parent.iterdir()) == [path]
    schuss.load(path, opt)


@posix
def test_permissions_are_read_without_setting_them(path, monkeypatch):
    """Setting the umask, even for a moment, would change the files that other threads make."""
    mask = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", None)
        schuss.save(path, schuss.Adam(np.ones(3)))
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        monkeypatch.undo()
        os.umask(mask)


@posix
def test_pipes_and_devices_are_refused_at_once(tmp_path):
    opt = schuss.Adam(np.ones(3))
    os.mkfifo(tmp_path / "pipe")
    for path in [tmp_path / "pipe", os.devnull]:
        for call in (schuss.load, schuss.save):
            with pytest.raises(OSError, match="not a regular file"):
                call(path, opt)


@posix
def test_a_file_that_shrinks_while_it_is_read(path, monkeypatch):
    """As when another program writes it again: an error, where a memory map would end the process."""
    opt = schuss.Adam(np.ones(100_000))
    schuss.save(path, opt)
    before = snapshot(opt)
    read = schuss.checkpoint.tensor_files.read

    def shrunk(*args):
        os.truncate(path, 5000)
        return read(*args)

    monkeypatch.setattr(schuss.checkpoint.tensor_files, "read", shrunk)
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        schuss.load(path, opt)
    assert_unchanged(opt, before)


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "folder/\ud800"])
def test_paths_that_name_no_file(path):
    for call in (schuss.load, schuss.save):
        with pytest.raises(ValueError, match=r"is not the name of a file: it has a character that no name can have$"):
            call(path, schuss.Adam(np.ones(3)))


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
