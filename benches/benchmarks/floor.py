"""The floor of memory traffic, from Python: builds the crate in ``benches/floor`` and calls it through ctypes."""

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

# Below this many bytes the arrays stay in the caches, and a second thread costs more than it saves.
SERIAL_BYTES = 16 << 20


class FloorUnavailable(RuntimeError):
    """The floor cannot be built: cargo is missing or fails."""


class Pass(NamedTuple):
    """The arrays that one pass of a step only reads, and those that it writes: flat arrays of one length.

    Gradients and parameters have the same item size; states have another.
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
    """The compiled library. cargo rebuilds it if its source has changed."""
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
    """The item size that the arrays have in common; None without arrays."""
    sizes = {a.itemsize for a in arrays}
    if len(sizes) > 1:
        raise ValueError("the floor takes one item size for gradients and parameters, and one for states")
    return sizes.pop() if sizes else None


def make_pass(one, threads):
    """A callable with the memory traffic of one pass. It does not change the arrays."""
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
    call.keep = arrays  # the pointers are valid only while the arrays live
    return call


def make_floor(passes, threads=1):
    """A callable with the memory traffic of a step: its passes in order."""
    calls = [make_pass(one, threads) for one in passes]
    if len(calls) == 1:
        return calls[0]

    def run():
        for call in calls:
            call()

    return run


def make_divider(n, divisions, roots):
    """A callable with a rule's divisions and square roots for n float32 elements, on one thread."""
    return functools.partial(library().schuss_divider, n, divisions, roots)
