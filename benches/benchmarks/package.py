"""The package itself: import time, size of the compiled module, checkpoints."""

import os
import tempfile
import time
from pathlib import Path

import schuss

from .common import Job


def timeraw_import_numpy():
    """What an import of schuss contains anyway."""
    return "import numpy"


def timeraw_import_schuss():
    return "import schuss"


def timeraw_import_schuss_beyond_numpy():
    return "import schuss", "import numpy"


def track_extension_size():
    root = Path(schuss.__file__).parent
    return sum(p.stat().st_size for p in root.rglob("*") if p.suffix in (".so", ".pyd", ".dylib"))


track_extension_size.unit = "bytes"


class Checkpoint:
    """AdamW over a list of 16 arrays, 8 M elements in all: 96 MB with the parameters."""

    number = 1
    unit = "MB/s"

    def setup(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "checkpoint.safetensors")
        self.optimizer = Job("AdamW", [524_288] * 16).optimizer
        self.save()

    def teardown(self):
        self.folder.cleanup()

    def save(self):
        schuss.save(self.path, self.optimizer, include_params=True)

    def load(self):
        schuss.load(self.path, self.optimizer, include_params=True)

    def time_save(self):
        self.save()

    def time_load(self):
        self.load()

    def _rate(self, action):
        best = float("inf")
        for _ in range(3):
            begin = time.perf_counter()
            action()
            best = min(best, time.perf_counter() - begin)
        return os.path.getsize(self.path) / 1e6 / best

    def track_save_rate(self):
        return self._rate(self.save)

    def track_load_rate(self):
        return self._rate(self.load)
