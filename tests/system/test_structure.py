"""Imports of the Rust crates run one way: the top-level modules of a crate have no import cycle."""

import graphlib
import re

import pytest
from helpers import ROOT

CRATES = {"kernels": ROOT / "rust" / "kernels" / "src", "python": ROOT / "rust" / "python" / "src"}


def imports(source):
    """For each top-level module below `source`, the others that its code imports."""
    modules = {path.stem: path for path in source.iterdir() if path.suffix in ("", ".rs") and path.stem != "lib"}
    graph = {}
    for name, path in modules.items():
        named = set()
        for file in [path] if path.is_file() else path.rglob("*.rs"):
            if file.stem == "tests":
                continue
            code = re.sub(r"//.*", "", file.read_text()).split("#[cfg(test)]\nmod tests {")[0]
            named |= set(re.findall(r"\bcrate::(?:\{[^}]*\}|\w+)", code))
        words = set(re.findall(r"\w+", " ".join(named)))
        graph[name] = words & set(modules) - {name}
    return graph


@pytest.mark.parametrize("crate", CRATES)
def test_imports_run_one_way(crate):
    graph = imports(CRATES[crate])
    assert len(graph) > 5 and any(graph.values())
    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_a_cycle_is_found(tmp_path):
    (tmp_path / "a.rs").write_text("use crate::b::B;")
    (tmp_path / "b.rs").write_text("use crate::{a::A};")
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter(imports(tmp_path)).static_order())
