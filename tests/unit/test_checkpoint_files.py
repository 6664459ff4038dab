"""Files of checkpoints on the disk: paths, links, permissions; saves that fail, are killed, or run at once."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_unchanged, snapshot

import schuss
from schuss._arrays import atomic_files

posix = pytest.mark.skipif(os.name != "posix", reason="needs links, permissions or limits")


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


def test_other_paths_are_refused(tmp_path):
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


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "folder/\ud800"])
def test_paths_that_name_no_file(path):
    for call in (schuss.load, schuss.save):
        with pytest.raises(ValueError, match=r"is not the name of a file: it has a character that no name can have$"):
            call(path, schuss.Adam(np.ones(3)))


@posix
def test_pipes_and_devices_are_refused_at_once(tmp_path):
    opt = schuss.Adam(np.ones(3))
    os.mkfifo(tmp_path / "pipe")
    for path in [tmp_path / "pipe", os.devnull]:
        for call in (schuss.load, schuss.save):
            with pytest.raises(OSError, match="not a regular file"):
                call(path, opt)


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
