"""What the package costs before anything is computed: its size, and what importing it loads."""

import subprocess
import sys

from helpers import ROOT

sys.path.insert(0, str(ROOT / "benches"))

from benchmarks.package import wheel_size


def test_size_of_the_wheel():
    assert 1e5 < wheel_size() < 4e6


def test_import_loads_little():
    """What only some programs need is loaded when they need it: the import would take twice as long otherwise."""
    code = "import numpy, sys; before = set(sys.modules); import schuss; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "schuss" in loaded
    assert not loaded & {"json", "tempfile", "shutil", "safetensors", "ml_dtypes", "inspect", "torch", "jax"}
    parts = {name for name in done.stdout.split() if name.startswith("schuss.")}
    assert not parts & {"schuss.schedules", "schuss.init", "schuss.functional"}
