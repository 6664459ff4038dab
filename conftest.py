"""Leaves out what needs packages that are not installed; `make test-torch` installs and runs it."""

from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
NEED = {"torch": ["tests/torch", "python/schuss/torch"], "flwr": ["tests/flower", "python/schuss/flower.py"]}
LEFT_OUT = [HERE / path for package, paths in NEED.items() if find_spec(package) is None for path in paths]
LEFT_OUT.append(HERE / "tests" / "fuzz")  # programs, which tests/system/test_fuzz.py runs


def pytest_ignore_collect(collection_path):
    """True leaves a path out, None leaves it to others."""
    return True if collection_path in LEFT_OUT else None
