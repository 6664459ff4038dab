"""Writes the generated pages: one for each optimizer, and the parts that other pages include.

An optimizer's page has its docstring, its states, and the equations of its kernels. All files are written to folders
called ``generated``, before Sphinx looks for sources.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import docstrings
import sympy as sp
from rule_latex import display, tex
from rule_tree import FUNCTIONS, Line, Stage, equations, symbol
from variants import Kernels, Variant, variants

import schuss
from schuss import _schuss
from schuss._core.optimizer import Optimizer
from schuss.wrappers.base import Wrapper

#: What a class does outside its kernel, and so outside its equations.
NOTES = {
    "NAG": "``look_ahead`` runs before the closure, on a copy of :math:`p`; ``step`` begins with :math:`p` as it was.",
    "Muon": "NumPy makes :math:`u` nearly orthogonal between ``gather`` and ``step``.",
    "SOAP": "NumPy rotates :math:`x` and :math:`u` after ``gather``, and :math:`u` back after ``scale``.",
    "Shampoo": "NumPy multiplies :math:`u` by the preconditioners, and with grafting scales it, after ``gather``.",
    "Newton": "The kernel takes the last step; its :math:`g` is the solution of the damped system.",
}
DECAYS = {"l2": "L2", "own": "as the equations have it"}
HEADINGS = {"each_step": "once a step", "pass": "for each element", **docstrings.SCOPES}
DIMENSIONS = {(1,): ", for arrays of one dimension", (2,): ", for arrays of more than one dimension"}
#: The methods and attributes of all optimizers, from their page.
API = Path(__file__).parents[1] / "api" / "optimizer.rst"
COMMON = re.findall(r"^\.\. auto\w+:: Optimizer\.(\w+)$", API.read_text(encoding="utf-8"), re.MULTILINE)


def heading(text: str, mark: str) -> list[str]:
    """A heading and an empty line."""
    return [text, mark * len(text), ""]


def prologue() -> tuple[Line, ...]:
    """The prologue of every rule, one line for each assignment."""
    scalars, statements = _schuss.prologue()
    known = {name: symbol(name) for name in ("p", "g", *scalars)} | FUNCTIONS
    pairs = (statement.split(" = ") for statement in statements)
    return tuple(Line(name, sp.sympify(value, locals=known), assigns=True) for name, value in pairs)


def displayed(stages: Iterable[Stage]) -> list[str]:
    """The equations of a program, with headings if it has several stages."""
    stages, lines = list(stages), []
    for stage in stages:
        lines += [f"{HEADINGS[stage.kind].capitalize()}:", ""] if stages[1:] else []
        lines += [".. math::", "", *(f"   {line}" for line in display(stage.lines).splitlines()), ""]
    return lines


def _variant(kind: type[Optimizer], variant: Variant, several: bool) -> list[str]:
    parts = ["params"]
    for name, value in variant.options.items():
        # The number itself is arbitrary; only whether it is zero matters.
        words = {str: f'="{value}"', float: " > 0" if value else " = 0"}
        parts.append(name + words.get(type(value), f"={value}"))
    shown = f"``{kind.__name__}({', '.join(parts)})``{DIMENSIONS.get(variant.ndims, '') if several else ''}"
    lines = [f".. rubric:: {shown}", "   :class: setting", ""]
    for name, stages in variant.programs.items():
        lines += [f"The program ``{name}``:", ""] if len(variant.programs) > 1 else []
        lines += displayed(stages)
    return lines


def _kernels(name: str, kind: type[Optimizer]) -> list[str]:
    kernels = Kernels(kind)
    lines = [*heading("What the kernel computes", "-"), ":ref:`How to read it <equations>`.", NOTES.get(name, ""), ""]
    if "weight_decay" in kernels.defaults:
        decays = [kernels.kind._decay({**kernels.defaults, **options}) for options in kernels.valid_options()]
        forms = " or ".join(DECAYS.get(decay, decay) for decay in dict.fromkeys(decays))
        lines += [f"Gradient and parameter have been :ref:`prepared <prologue>`; weight decay is {forms}.", ""]
    for rule in dict.fromkeys(variant.rule for variant in variants(kind)):
        found = [state for state in _schuss.rules()[rule]["states"] if state["scope"] != "backup"]
        words = [f":math:`{tex(s['name'])}` {docstrings.SCOPES.get(s['scope'], '')}".rstrip() for s in found]
        lines += [*heading(f"The rule ``{rule}``", "^"), f"State: {', '.join(words) or 'none'}.", ""]
        for variant in variants(kind):
            lines += _variant(kind, variant, len(kernels.rules(variant.options)) > 1) if variant.rule == rule else []
    return lines


def page(name: str, kind: type[Optimizer]) -> str:
    """The page of one class, with the gallery's figures that use it."""
    lines = [*heading(name, "="), ".. currentmodule:: schuss", ""]
    lines += [*docstrings.example(kind), ""]
    # Also the methods of a base that some optimizers share, but not those of all optimizers.
    lines += [f".. autoclass:: {name}", "   :members:", "   :inherited-members: Optimizer"]
    delegates = issubclass(kind, Wrapper)
    common = [m for m in COMMON if delegates or getattr(kind, m) is getattr(Optimizer, m)]
    lines += [f"   :exclude-members: {', '.join(common)}", ""]
    shared = ", ".join(f":obj:`{member} <schuss.Optimizer.{member}>`" for member in COMMON)
    lines += [f"Every optimizer also has {shared}.", ""]
    lines += _kernels(name, kind) if name in schuss.OPTIMIZERS else []
    if issubclass(kind, schuss.Lookahead):
        lines += [*heading("Synchronization", "-"), "Every k-th step; each element has a slow weight as its state.", ""]
        lines += displayed(equations(_schuss.rule_tree("lookahead"), "sync", {"factor": symbol("alpha")}, []))
    lines += [f".. minigallery:: schuss.{name}", "   :add-heading: In the gallery", "   :heading-level: -", ""]
    return "\n".join(lines)


def pages() -> dict[str, type[Optimizer]]:
    """The classes that have a page: those of the registry, and their wrappers."""
    things = [getattr(schuss, name) for name in schuss.__all__]  # some are imported on first use
    kinds = [kind for kind in things if isinstance(kind, type) and issubclass(kind, Optimizer)]
    return schuss.OPTIMIZERS | {kind.__name__: kind for kind in kinds if kind is not Optimizer}


def write_pages(app: Any, config: Any) -> None:
    """Writes all files that have changed, so that Sphinx builds only those again."""
    source = Path(app.srcdir)
    sys.path.insert(0, str(source.parent / "benches"))
    import page as speed

    clipping = equations(_schuss.rule_tree("clip_norm"), "step", {"unit": 1.0}, ["grad_scale"], ["factor"])
    kinds = pages()
    files = {f"optimizers/generated/{name}.rst": page(name, kind) for name, kind in kinds.items()}
    files |= {
        "optimizers/generated/prologue.inc": "\n".join(displayed([Stage("pass", prologue())])),
        "optimizers/generated/clipping.inc": "\n".join(displayed(clipping)),
        "generated/speed.inc": speed.rst(speed.load()),
        "generated/headline.inc": speed.headline(speed.load()),
        "generated/facts.inc": speed.facts(speed.load()),
    }
    for old in {*source.glob("optimizers/generated/*.rst")} - {source / name for name in files}:
        old.unlink()  # of a class that was removed
    for name, text in files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Registers `write_pages`, which runs before Sphinx looks for sources."""
    app.connect("config-inited", write_pages)
    return {"parallel_read_safe": True}
