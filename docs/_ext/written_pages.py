"""Writes the pages that are made from something else in the repository.

The API lists come from what the package exports, so that new functions and modules join by themselves; how to add an
optimizer comes from CONTRIBUTING, the speed tables from the figures that the benchmarks recorded; a gallery without
scripts still gets a page to link to.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from optimizer_pages import heading, write
from variants import optimizers

import schuss

#: Modules of their own page, if the package has them, with their title.
MODULES = {
    "schedules": "Learning-rate schedules",
    "init": "Initializers",
    "functional": "Functional interface",
}
#: Functions and classes of the package by their first match, and the heading they come under.
GROUPS = {
    "Parameter groups": {"ParamGroup"},
    "Checkpoints": {"save", "load"},
    "Configuration": {"get_num_threads", "set_num_threads", "cpu_level", "cpu_levels", "show_config"},
}
OWN_PAGES = {"Optimizer"}


def public(module: ModuleType) -> list[str]:
    """The functions and classes that a module gives out, in the order of definition."""
    given = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    result = []
    for name in given:
        thing = getattr(module, name)
        own = (getattr(thing, "__module__", None) or "").startswith("schuss")
        if own and (inspect.isfunction(thing) or inspect.isclass(thing) or inspect.isbuiltin(thing)):
            result.append(name)
    return result


def _summary_table(module: str, names: list[str]) -> list[str]:
    lines = [f".. currentmodule:: {module}", "", ".. autosummary::", "   :toctree: ../generated", ""]
    return [*lines, *(f"   {name}" for name in names), ""]


def _module_page(name: str, title: str) -> str:
    module = importlib.import_module(f"schuss.{name}")
    names = public(module)
    lines = heading(title, "=")
    lines += [f".. automodule:: schuss.{name}", "   :no-members:", ""]
    if name == "functional":
        # One function a class, all alike: a page each would say the same every time.
        for function in names:
            lines += [f".. autofunction:: schuss.{name}.{function}", ""] if function.endswith("_") else []
    else:
        lines += _summary_table(f"schuss.{name}", names)
    return "\n".join(lines)


def _api_lists(source: Path) -> None:
    folder = source / "api" / "lists"
    modules = {name: title for name, title in MODULES.items() if isinstance(getattr(schuss, name, None), ModuleType)}
    for name, title in modules.items():
        write(folder / f"{name}.rst", _module_page(name, title))
    rest = [name for name in public(schuss) if name not in optimizers()]
    grouped = {name for names in GROUPS.values() for name in names}
    groups = {"Gradients and groups": {name for name in rest if name not in grouped}, **GROUPS}
    lines = [*heading("Functions and helpers", "="), "All of these are in ``schuss`` itself.", ""]
    for title, names in groups.items():
        listed = [name for name in rest if name in names and name not in OWN_PAGES]
        if listed:
            lines += [*heading(title, "-"), *_summary_table("schuss", listed)]
    write(folder / "functions.rst", "\n".join(lines))


def section(text: str, title: str) -> str:
    """What stands under a heading of the second level of a Markdown file."""
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if match is None:
        raise ValueError(f"CONTRIBUTING.md has no section {title!r}")
    return match[1].strip()


def _contributing(source: Path) -> None:
    text = (source.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = ["# How to add an optimizer", "", section(text, "Adding an optimizer"), ""]
    lines += ["## Where things are", "", section(text, "Where things are"), ""]
    write(source / "internals" / "generated" / "adding.md", "\n".join(lines))


def _speed(source: Path) -> None:
    sys.path.insert(0, str(source.parent / "benches"))
    import page

    write(source / "generated" / "speed.inc", page.rst(page.load()))


def _gallery(app: Any, source: Path) -> None:
    if "sphinx_gallery.gen_gallery" not in app.extensions:
        lines = [*heading("Gallery", "="), "The gallery's scripts were not there when this was built.", ""]
        write(source / "gallery" / "index.rst", "\n".join(lines))


def write_pages(app: Any, config: Any) -> None:
    """Writes everything."""
    source = Path(app.srcdir)
    _api_lists(source)
    _contributing(source)
    _speed(source)
    _gallery(app, source)


def setup(app: Any) -> dict[str, bool]:
    """Runs before Sphinx looks for sources."""
    app.connect("config-inited", write_pages)
    return {"parallel_read_safe": True}
