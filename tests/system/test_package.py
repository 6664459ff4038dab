"""The package's size, and the modules that importing it loads."""

import subprocess
import sys

from helpers import ROOT

sys.path.insert(0, str(ROOT / "benches"))

from benchmarks.package import wheel_size


def test_size_of_the_wheel():
    assert 1e5 < wheel_size() < 4e6


def test_import_loads_little():
    """Modules that few programs need are imported on first use; otherwise the import would take twice as long."""
    code = "import numpy, sys; before = set(sys.modules); import schuss; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "schuss" in loaded
    assert not loaded & {"json", "tempfile", "shutil", "safetensors", "ml_dtypes", "inspect", "torch", "jax"}
    parts = {name for name in done.stdout.split() if name.startswith("schuss.")}
    assert not parts & {"schuss.schedules", "schuss.init", "schuss.functional"}
