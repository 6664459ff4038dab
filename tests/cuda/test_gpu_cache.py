"""The kernel cache on disk: each kernel is compiled once, and again if its file is damaged."""

import os
import subprocess
import sys

import gpu
import pytest

pytestmark = pytest.mark.skipif(gpu.MODE != "emulator", reason="counts the emulator's compilations")

SCRIPT = """
import gpu, numpy as np
gpu.start()
import schuss, os
gpu.fail(os.environ.get("FAIL", ""))
w = gpu.Array(np.ones(3, np.float32))
schuss.SGD(w, lr=0.5).step(gpu.Array(np.ones(3, np.float32)))
assert (w.host == 0.5).all()
print(*[line for line in gpu.log() if line.startswith("compile")], sep="\\n")
"""


def compilations(folder, **env):
    path = os.pathsep.join(sys.path)
    env = os.environ | {"SCHUSS_CUDA_CACHE": str(folder), "PYTHONPATH": path} | env
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_kernels_are_compiled_once_per_machine(tmp_path):
    folder = tmp_path / "new" / "folder"
    (first,) = compilations(folder)
    options = "--std=c++17 --fmad=false --ftz=false --prec-div=true --prec-sqrt=true"
    assert first == f"compile --gpu-architecture=sm_90 {options}"
    assert compilations(folder) == [""]
    assert [path.suffix for path in folder.iterdir()] == [".bin"]


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "appended", "another key", "no file"])
def test_a_damaged_file_is_compiled_again(tmp_path, damage):
    compilations(tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = {
        "empty": b"",
        "short": whole[:-1],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "appended": whole + b"x",
        "another key": whole.replace(b"sm_90", b"sm_80", 1),
    }.get(damage)
    if damaged is None:
        path.unlink()
        path.mkdir()  # can be neither read nor replaced
    else:
        path.write_bytes(damaged)
    assert len(compilations(tmp_path)) == 1 and compilations(tmp_path)[0].startswith("compile") == path.is_dir()
    assert path.is_dir() or path.read_bytes() == whole
    assert len(list(tmp_path.iterdir())) == 1


def test_code_that_the_driver_does_not_load_is_compiled_again(tmp_path):
    (first,) = compilations(tmp_path)
    assert compilations(tmp_path, FAIL="load") == [first]


def test_kernels_compile_without_a_writable_folder(tmp_path):
    assert compilations("")[0].startswith("compile")
    (tmp_path / "file").write_text("")
    assert compilations(tmp_path / "file" / "folder")[0].startswith("compile")


def test_kernels_for_a_newer_device_are_ptx_and_not_cached(tmp_path):
    (line,) = compilations(tmp_path, EMULATOR_MAJOR="12")
    assert "--gpu-architecture=compute_90" in line and not list(tmp_path.iterdir())
