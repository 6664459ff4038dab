"""Writes the generated pages: one for each optimizer, and the parts that other pages include.

An optimizer's page has its docstring, its states, and the equations of its kernels. All files are written to folders
called ``generated``, before Sphinx looks for sources.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sympy as sp
from rule_latex import display, tex
from rule_tree import FUNCTIONS, Line, Stage, equations, names, symbol
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
SCOPES = {"row": "for each row", "col": "for each column", "array": "for each array", "all": "for all arrays"}
HEADINGS = {"each_step": "once a step", "pass": "for each element", **SCOPES}
DIMENSIONS = {(1,): ", for arrays of one dimension", (2,): ", for arrays of more than one dimension"}
#: The methods and attributes of all optimizers.
COMMON = [name for name in dir(Optimizer) if not name.startswith("_")]
WORDS = {"p": "a parameter", "g": "its gradient", "t": "the number of the step, from 1"}


def heading(text: str, mark: str) -> list[str]:
    """A heading and an empty line."""
    return [text, mark * len(text), ""]


def prologue() -> tuple[Line, ...]:
    """The prologue of every rule, one line for each assignment."""
    scalars, statements = _schuss.prologue()
    known = {name: symbol(name) for name in ("p", "g", *scalars)} | FUNCTIONS
    pairs = (statement.split(" = ") for statement in statements)
    return tuple(Line(name, sp.sympify(value, locals=known), assigns=True) for name, value in pairs)


def symbols(kind: type[Optimizer]) -> str:
    """What the symbols in the equations of a class stand for; the name of an option stands for itself."""
    stages = [stage for variant in variants(kind) for program in variant.programs.values() for stage in program]
    used = {name for stage in stages for line in stage.lines for name in (line.name, *names(line.value))}
    known = WORDS | Kernels(kind).options_of_names()
    clear = {name for name in known if tex(name).startswith(r"\mathrm") and known[name] == f"``{name}``"}
    entries = [f":math:`{tex(name)}` is {words}" for name, words in known.items() if name in used - clear]
    return f"Here {', '.join(entries)}."


def displayed(stages: Sequence[Stage]) -> list[str]:
    """The equations of a program, with headings if it has several stages."""
    lines: list[str] = []
    for stage in stages:
        lines += [f"{HEADINGS[stage.kind].capitalize()}:", ""] if len(stages) > 1 else []
        lines += [".. math::", "", *(f"   {line}" for line in display(stage.lines).splitlines()), ""]
    return lines


def _variant(kind: type[Optimizer], variant: Variant) -> list[str]:
    parts = ["params"]
    for name, value in variant.options.items():
        # The number itself is arbitrary; only whether it is zero matters.
        words = {str: f'="{value}"', float: " > 0" if value else " = 0"}
        parts.append(name + words.get(type(value), f"={value}"))
    shown = f"``{kind.__name__}({', '.join(parts)})``{DIMENSIONS.get(variant.ndims, '')}"
    lines = [f".. rubric:: {shown}", "   :class: setting", ""]
    for name, stages in variant.programs.items():
        lines += [f"The program ``{name}``:", ""] if len(variant.programs) > 1 else []
        lines += displayed(stages)
    return lines


def _states(rule: str) -> str:
    """The states of a rule and their first values, in a sentence."""
    starts = []
    for state in _schuss.rules()[rule]["states"]:
        if state["scope"] != "backup":
            first = state["initial"] if isinstance(state["initial"], str) else f"{state['initial']:g}"
            starts.append(f":math:`{tex(state['name'])}` at ``{first}`` {SCOPES.get(state['scope'], '')}".rstrip())
    return f"The state starts with {', '.join(starts)}." if starts else "There is no state."


def _kernels(name: str, kind: type[Optimizer]) -> list[str]:
    kernels = Kernels(kind)
    lines = [*heading("What the kernel computes", "-"), ":ref:`How to read it <equations>`.", symbols(kind), ""]
    lines += [NOTES[name], ""] if name in NOTES else []
    if "weight_decay" in kernels.defaults:
        decays = [kernels.kind._decay({**kernels.defaults, **options}) for options in kernels.valid_options()]
        forms = " or ".join(DECAYS.get(decay, decay) for decay in dict.fromkeys(decays))
        lines += [f"Gradient and parameter have been :ref:`prepared <prologue>`; weight decay is {forms}.", ""]
    for rule in dict.fromkeys(variant.rule for variant in variants(kind)):
        lines += [*heading(f"The rule ``{rule}``", "^"), _states(rule), ""]
        for variant in variants(kind):
            lines += _variant(kind, variant) if variant.rule == rule else []
    return lines


def page(name: str, kind: type[Optimizer]) -> str:
    """The page of one class, with the gallery's figures that use it."""
    lines = [*heading(name, "="), ".. currentmodule:: schuss", ""]
    # Also the methods of a base that some optimizers share, but not those of all optimizers.
    lines += [f".. autoclass:: {name}", "   :members:", "   :inherited-members: Optimizer"]
    common = [each for each in COMMON if getattr(kind, each) in (getattr(Optimizer, each), getattr(Wrapper, each))]
    lines += [f"   :exclude-members: {', '.join(common)}", ""]
    lines += ["It also has :doc:`the methods and attributes of all optimizers </api/optimizer>`.", ""]
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
    files = {f"optimizers/generated/{name}.rst": page(name, kind) for name, kind in pages().items()}
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
