"""Leaves out what needs packages that are not installed; `make test-torch` installs and runs it."""

from importlib.util import find_spec

NEED = {"torch": ["tests/torch", "python/schuss/torch"], "flwr": ["tests/flower", "python/schuss/flower.py"]}
collect_ignore = [path for package, paths in NEED.items() if find_spec(package) is None for path in paths]
