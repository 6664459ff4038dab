"""Arrays on a GPU for the tests in tests/cuda: a real GPU, or one that emulator.cpp emulates on the host.

The environment variable SCHUSS_TEST_CUDA says which, "gpu" or "emulator". The emulator takes the places of NVIDIA's
driver and compiler in the whole process, so those tests run in processes of their own: see test_cuda.py.
"""

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from schuss import _schuss

MODE = os.environ.get("SCHUSS_TEST_CUDA")
SOURCE = Path(__file__).with_name("emulator.cpp")
CODES = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<V2"}
EMULATOR = None


def build():
    """The emulator's library, compiled when it is new, and a folder beside it for compiled kernels."""
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
    """Makes this process one with a GPU."""
    global EMULATOR
    if MODE == "emulator" and EMULATOR is None:
        folder, library = build()
        os.environ.setdefault("SCHUSS_NVRTC", str(library))
        os.environ.setdefault("SCHUSS_CUDA_CACHE", str(folder / f"kernels-{SOURCE.stat().st_mtime_ns}"))
        EMULATOR = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        EMULATOR.emulator_log.restype = ctypes.c_char_p


def log():
    """What the emulator was asked for since the last call."""
    lines = EMULATOR.emulator_log().decode().splitlines()
    EMULATOR.emulator_clear()
    return lines


def fail(name, nth=1):
    """Makes the nth call of this name from now on fail with an out-of-memory error."""
    EMULATOR.emulator_fail(name.encode(), nth)


class Array:
    """An array as another library would have it on a GPU; `offset` elements from where its memory begins."""

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
        """Its values now."""
        values = np.empty(self.shape, self.dtype, self.order)
        _schuss.cuda_copy(self.device, values.ctypes.data, self.pointer, self.nbytes, 1)
        return values

    @host.setter
    def host(self, values):
        values = np.asarray(values, self.dtype, order=self.order)
        _schuss.cuda_copy(self.device, self.pointer, values.ctypes.data, self.nbytes, 1)

    @property
    def __cuda_array_interface__(self):
        data = (self.pointer, self.readonly)
        code = CODES.get(str(self.dtype), self.dtype.str)
        return dict(shape=self.shape, typestr=code, data=data, strides=self.strides, version=3, stream=self.stream)
