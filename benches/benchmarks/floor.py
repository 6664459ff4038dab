"""The traffic floor from Python: builds the small crate in ``benches/floor`` on demand and calls it through ctypes."""

import ctypes
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

CRATE = Path(__file__).resolve().parent.parent / "floor"
NAMES = {"darwin": "libschuss_floor.dylib", "win32": "schuss_floor.dll"}

# Below this many bytes a step stays in the caches and starting a thread costs more than it saves: one thread then.
SERIAL_BYTES = 16 << 20


class FloorUnavailable(RuntimeError):
    """The floor cannot be built here: there is no cargo, or it fails."""


@functools.cache
def library():
    """The compiled floor. Built once; cargo itself decides whether anything has changed since."""
    cargo = shutil.which("cargo")
    if cargo is None:
        raise FloorUnavailable("the traffic floor needs cargo (https://rustup.rs) on the PATH")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or CRATE.parent.parent / "target") / "floor"
    command = [cargo, "build", "--release", "--quiet", "--manifest-path", str(CRATE / "Cargo.toml")]
    built = subprocess.run([*command, "--target-dir", str(target)], capture_output=True, text=True)
    if built.returncode:
        raise FloorUnavailable(f"the traffic floor does not build:\n{built.stderr}")
    lib = ctypes.CDLL(str(target / "release" / NAMES.get(sys.platform, "libschuss_floor.so")))
    lib.schuss_floor.restype = ctypes.c_int
    lib.schuss_floor.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)] + [ctypes.c_size_t] * 5
    return lib


def make_floor(gradient, parameter, states=(), threads=1):
    """A callable with the traffic of one step over these arrays. It leaves every bit of them as it is.

    gradient and parameter: contiguous arrays of one item size; states: up to four arrays of one other item size.
    """
    states = list(states)
    arrays = [parameter, *states]
    n = parameter.size
    for a in [gradient, *arrays]:
        if a.size != n or not (a.flags.c_contiguous or a.flags.f_contiguous):
            raise ValueError("the floor takes contiguous arrays of one size")
    first, rest = parameter.itemsize, states[0].itemsize if states else parameter.itemsize
    if gradient.itemsize != first or any(a.itemsize != rest for a in states):
        raise ValueError("the floor takes one item size for gradient and parameter, and one for the states")
    if traffic_bytes(gradient, arrays) < SERIAL_BYTES:
        threads = 1
    pointers = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
    call = functools.partial(
        library().schuss_floor, gradient.ctypes.data, pointers, len(arrays), first, rest, n, threads
    )
    if call() != 0:
        raise ValueError(f"the floor does not know {len(states)} states of {rest} bytes beside words of {first} bytes")
    call.keep = [gradient, *arrays]  # the pointers are only good while the arrays live
    return call


def traffic_bytes(gradient, read_and_written):
    """Bytes that one step has to move: the gradient once, everything else in and out."""
    return gradient.nbytes + 2 * sum(a.nbytes for a in read_and_written)
