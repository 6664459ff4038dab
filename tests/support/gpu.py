"""Arrays on a GPU for tests/cuda: on a real GPU, or on one that emulator.cpp emulates on the host.

The environment variable SCHUSS_TEST_CUDA chooses, "gpu" or "emulator". The emulator replaces NVIDIA's driver and
compiler in the whole process, so these tests run in child processes: see test_cuda.py. As a script it runs another on
that GPU: `SCHUSS_TEST_CUDA=emulator python tests/support/gpu.py benches/cuda.py [OPTIONS]`.
"""

import ctypes
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from schuss import _schuss

MODE = os.environ.get("SCHUSS_TEST_CUDA")
SOURCE = Path(__file__).with_name("emulator.cpp")
CODES = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<V2"}
EMULATOR = None


def build():
    """The emulator's library, compiled if its source has changed, and the folder for compiled kernels."""
    folder = Path(tempfile.gettempdir()) / f"schuss-emulator-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"libcuda-{SOURCE.stat().st_mtime_ns}.so.1"
    if not library.exists():
        made = folder / f"{os.getpid()}.so"
        command = ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        subprocess.run([*command, "-Wl,-soname,libcuda.so.1", "-o", made, SOURCE, "-ldl"], check=True)
        os.replace(made, library)
    return folder, library


def start():
    """Prepares this process for a GPU, real or emulated."""
    global EMULATOR
    if MODE == "emulator" and EMULATOR is None:
        folder, library = build()
        os.environ.setdefault("SCHUSS_NVRTC", str(library))
        os.environ.setdefault("SCHUSS_CUDA_CACHE", str(folder / f"kernels-{SOURCE.stat().st_mtime_ns}"))
        EMULATOR = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        EMULATOR.emulator_log.restype = ctypes.c_char_p


def log():
    """The driver calls that the emulator has received since this was last called."""
    lines = EMULATOR.emulator_log().decode().splitlines()
    EMULATOR.emulator_clear()
    return lines


def fail(name, nth=1):
    """Makes the nth call of this name fail, counted from now: as if out of memory, or as NVRTC's functions fail."""
    EMULATOR.emulator_fail(name.encode(), nth)


class Array:
    """An array on a GPU as another library would pass it; it starts `offset` elements into its allocation."""

    def __init__(self, values, device=0, stream=None, readonly=False, offset=0):
        values = np.asarray(values)
        self.dtype, self.shape, self.stream, self.readonly = values.dtype, values.shape, stream, readonly
        self.order, self.nbytes, self.device = "C" if values.flags.c_contiguous else "F", values.nbytes, device
        self.strides = None if self.order == "C" else values.strides
        self.block = _schuss.CudaBlock(device, values.nbytes + offset * values.itemsize, False)
        self.pointer = self.block.pointer + offset * values.itemsize
        self.host = values

    @property
    def host(self):
        """A copy of its current values."""
        values = np.empty(self.shape, self.dtype, self.order)
        _schuss.cuda_copy(self.device, values.ctypes.data, self.pointer, self.nbytes, 1, True)
        return values

    @host.setter
    def host(self, values):
        values = np.asarray(values, self.dtype, order=self.order)
        _schuss.cuda_copy(self.device, self.pointer, values.ctypes.data, self.nbytes, 1, True)

    @property
    def __cuda_array_interface__(self):
        data = (self.pointer, self.readonly)
        code = CODES.get(str(self.dtype), self.dtype.str)
        return dict(shape=self.shape, typestr=code, data=data, strides=self.strides, version=3, stream=self.stream)


def cupy(streams):
    """A stand-in for CuPy that has only a current stream for each device, from a list."""
    now = [0]

    class Device:
        def __init__(self, number):
            self.number = number

        def __enter__(self):
            self.before, now[0] = now[0], self.number

        def __exit__(self, *_):
            now[0] = self.before

    def get_current_stream():
        return SimpleNamespace(ptr=streams[now[0]])

    return SimpleNamespace(cuda=SimpleNamespace(Device=Device, get_current_stream=get_current_stream))


def torch():
    """What benches/cuda.py uses of PyTorch, for an emulated GPU. Its optimizer does nothing."""

    def adamw(params, fused):
        assert fused and all(param.grad.fill == 0.1 for param in params)
        return SimpleNamespace(step=lambda: None)

    return SimpleNamespace(
        Tensor=SimpleNamespace,
        cuda=SimpleNamespace(is_available=lambda: True),
        ones=lambda n, device, requires_grad: SimpleNamespace(grad=None),
        full_like=lambda tensor, fill: SimpleNamespace(fill=fill),
        optim=SimpleNamespace(AdamW=adamw),
    )


if __name__ == "__main__":
    start()
    if MODE == "emulator":
        sys.modules["torch"] = torch()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
