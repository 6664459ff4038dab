"""The package's size, the modules that importing it loads, and the names that it shows."""

import pydoc
import re
import subprocess
import sys

import pytest
from helpers import ROOT

import schuss

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


def test_the_names_that_completion_and_star_import_show():
    shown = set(dir(schuss)) - {"__version__"}
    assert {"AdamW", "OPTIMIZERS", "Lookahead", "Offload", "save", "schedules"} <= shown
    assert not shown & {"Any", "TYPE_CHECKING", "importlib", "checkpoint", "gradients", "optimizers", "wrappers"}
    assert not [name for name in shown if name.startswith("_") or not hasattr(schuss, name)]
    imported = {}
    exec("from schuss import *", imported)
    assert imported.keys() - {"__builtins__"} == shown


@pytest.mark.parametrize("kind", [schuss.AdamW, schuss.NAG, schuss.Ranger])
def test_help_shows_what_a_user_calls(kind):
    text = pydoc.plaintext.document(kind)
    methods = re.findall(r"^ \|  (\w+)\(", text, re.MULTILINE)
    assert {"step", "zero_grad", "add_param_group", "state_dict", "load_state_dict"} <= set(methods)
    assert not [name for name in methods if name.startswith("_") and not name.endswith("__")]
    assert text.index("step(") < text.index("inherited from schuss._") < text.rindex("__new__")


def test_the_users_script_runs_and_uses_every_public_name():
    """`make lint` has mypy and pyright check it: what they must know of a new name is seen when it is used there."""
    path = ROOT / "tests" / "support" / "user_script.py"
    subprocess.run([sys.executable, path], check=True, capture_output=True)
    used = set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    assert set(schuss.__all__) - set(schuss.OPTIMIZERS) - used == set()
