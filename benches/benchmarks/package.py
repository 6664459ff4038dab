"""The package itself: import time, size of the wheel, checkpoints."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import schuss

from .jobs import Job
from .timing import SUITE

version = SUITE


def import_seconds(count):
    """The time of the import beyond NumPy's, in new processes.

    Compiled files are cached first, as pip does when it installs. Otherwise a Python that may not write them would
    compile the sources at every import.
    """
    code = "import time, numpy; t = time.perf_counter(); import schuss; print(time.perf_counter() - t)"
    with tempfile.TemporaryDirectory() as folder:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = folder
        command = [sys.executable, "-c", code]
        taken = [subprocess.run(command, env=env, capture_output=True, text=True, check=True) for _ in range(count + 1)]
    return [float(done.stdout) for done in taken[1:]]


def wheel_size():
    """The bytes of a wheel: the package's files, compressed. A wheel's metadata adds a few thousand."""
    files = [p for p in Path(schuss.__file__).parent.rglob("*") if p.suffix in (".py", ".pyi", ".so", ".pyd", ".dylib")]
    return sum(len(zlib.compress(p.read_bytes())) for p in files)


def track_import_beyond_numpy():
    return statistics.median(import_seconds(15))


track_import_beyond_numpy.unit = "seconds"


def timeraw_import_numpy():
    """The part of an import of schuss that is NumPy's."""
    return "import numpy"


def timeraw_import_schuss():
    return "import schuss"


def track_wheel_size():
    return wheel_size()


track_wheel_size.unit = "bytes"


class Checkpoint:
    """AdamW over 16 arrays with 8 M elements in all: 96 MB with the parameters."""

    number = 1  # a call takes long enough

    def setup(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "checkpoint.safetensors")
        self.optimizer = Job("AdamW", [524_288] * 16).optimizer
        self.save()

    def teardown(self):
        self.folder.cleanup()

    def save(self):
        schuss.save(self.path, self.optimizer)

    def load(self):
        schuss.load(self.path, self.optimizer)

    def time_save(self):
        self.save()

    def time_load(self):
        self.load()

    def rate(self, action):
        """MB/s, for the speed page; in the suite, where less is better, the times say the same."""
        best = float("inf")
        for _ in range(3):
            begin = time.perf_counter()
            action()
            best = min(best, time.perf_counter() - begin)
        return os.path.getsize(self.path) / 1e6 / best
