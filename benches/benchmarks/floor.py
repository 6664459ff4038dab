"""The traffic floor from Python: builds the small crate in ``benches/floor`` on demand and calls it through ctypes."""

import ctypes
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

CRATE = Path(__file__).resolve().parent.parent / "floor"
NAMES = {"darwin": "libschuss_floor.dylib", "win32": "schuss_floor.dll"}

# Below this many bytes a step stays in the caches and starting a thread costs more than it saves: one thread then.
SERIAL_BYTES = 16 << 20


class FloorUnavailable(RuntimeError):
    """The floor cannot be built here: there is no cargo, or it fails."""


class Pass(NamedTuple):
    """The arrays that one pass of a step reads, and those that it reads and writes: flat arrays of one length.

    Gradients and parameters have one item size, states have one of their own.
    """

    reads: tuple = ()
    writes: tuple = ()
    reads_state: tuple = ()
    writes_state: tuple = ()

    @property
    def bytes(self):
        return sum(a.nbytes for a in self.reads + self.reads_state) + 2 * sum(
            a.nbytes for a in self.writes + self.writes_state
        )


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
    size = ctypes.c_size_t
    lib.schuss_floor.restype = ctypes.c_int
    lib.schuss_floor.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(size), size, size, size, size]
    lib.schuss_divider.restype = ctypes.c_float
    lib.schuss_divider.argtypes = [size, size, size]
    return lib


def item_size(arrays):
    """The one item size of some arrays; None of no arrays."""
    sizes = {a.itemsize for a in arrays}
    if len(sizes) > 1:
        raise ValueError("the floor takes one item size for gradients and parameters, and one for states")
    return sizes.pop() if sizes else None


def make_pass(one, threads):
    """A callable with the traffic of one pass. It leaves every bit of the arrays as it is."""
    arrays = [a for own in one for a in own]
    n = arrays[0].size
    if any(a.size != n or not (a.flags.c_contiguous or a.flags.f_contiguous) for a in arrays):
        raise ValueError("the floor takes contiguous arrays of one size")
    first, rest = item_size(one.reads + one.writes), item_size(one.reads_state + one.writes_state)
    first, rest = first or rest, rest or first
    pointers = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
    counts = (ctypes.c_size_t * 4)(*map(len, one))
    call = functools.partial(
        library().schuss_floor, pointers, counts, first, rest, n, 1 if one.bytes < SERIAL_BYTES else threads
    )
    if call() != 0:
        wanted = " ".join(str(len(own)) for own in one)
        raise ValueError(
            f"no loop over {wanted} arrays of {first} and {rest} bytes; add one to benches/floor/src/lib.rs"
        )
    call.keep = arrays  # the pointers are only good while the arrays live
    return call


def make_floor(passes, threads=1):
    """A callable with the traffic of a step: its passes, one after the other."""
    calls = [make_pass(one, threads) for one in passes]
    if len(calls) == 1:
        return calls[0]

    def run():
        for call in calls:
            call()

    return run


def make_divider(n, divisions, roots):
    """A callable that divides and takes roots as a rule does for n elements of float32, on one thread."""
    return functools.partial(library().schuss_divider, n, divisions, roots)
