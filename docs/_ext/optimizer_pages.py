"""Writes one page for each optimizer of the registry: its docstring, and what its kernels compute.

The pages go to ``docs/optimizers/generated`` before Sphinx looks for sources; a file that would not change is left
alone, so that an unchanged page is not built again.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rule_latex import display, latex, symbol
from rule_math import PROLOGUE, simplify
from rule_source import file_of, synchronization
from rule_text import ONE, ZERO, Assign, Name, Node, parse, substitute
from sphinx.util.docutils import SphinxDirective
from variants import RULES, Kernels, Variant, has_rules, optimizers, variants

import schuss
from schuss._core.optimizer import Optimizer

_DECAY = {
    "decoupled": "1.0 - lr * weight_decay",
    "independent": "1.0 - lr / initial_lr * weight_decay",
}

#: What the equations of a class leave unsaid because it happens around the kernel.
NOTES = {
    "NAG": "Here :math:`g` is the gradient at the look-ahead point, where the parameters are while the closure runs.",
    "Ranger": "From each :math:`g` of more than one dimension its mean over all axes but the first is taken before.",
    "Newton": "The kernel takes the last step; its :math:`g` is the solution of the damped system.",
}
#: Classes that hand their kernel a finished direction.
UNPREPARED = {"Newton"}


def indented(lines: Iterable[str], by: str = "   ") -> list[str]:
    """Lines moved to the right."""
    return [by + line if line else line for line in lines]


def math(text: str) -> list[str]:
    """A displayed equation."""
    return [".. math::", "", *indented(text.splitlines()), ""]


def heading(text: str, mark: str) -> list[str]:
    """A heading and an empty line."""
    return [text, mark * len(text), ""]


def summary(thing: Any) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def quoted(value: Any) -> str:
    """A value as Python has it, strings in double quotes."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def call(kind: type[Optimizer], options: Mapping[str, Any]) -> str:
    """A constructor with the options of a variant; a number that is merely not zero is shown as an inequality."""
    parts = []
    for name, value in options.items():
        if isinstance(value, float):
            parts.append(f"{name} = 0" if value == 0.0 else f"{name} > 0")
        else:
            parts.append(f"{name}={quoted(value)}")
    return f"{kind.__name__}({', '.join(['params', *parts])})"


def preparation(decay: str) -> list[Assign]:
    """What is done to gradient and parameter in front of a rule, for one kind of weight decay."""
    known: dict[str, Node] = {"l2": ZERO, "decay": ONE}
    if decay == "l2":
        known = {"l2": Name("weight_decay"), "decay": ONE}
    elif decay in _DECAY:
        known["decay"] = parse(f"decay = {_DECAY[decay]};")[0].value
    statements = []
    for statement in parse(PROLOGUE):
        value = simplify(substitute(statement.value, known), {}, {"weight_decay"})
        if value != Name(statement.target):
            statements.append(Assign(statement.target, value))
    return statements


def _preparations(kernels: Kernels) -> list[str]:
    hypers, kind = kernels.defaults, kernels.kind
    decays: dict[str, str] = {}
    for name, values in {"decay_form": ("lr", "independent"), "decoupled_weight_decay": (False, True)}.items():
        if name in hypers:
            decays = {kind._decay({**hypers, name: value}): f"``{name}={quoted(value)}``:" for value in values}
    decays = decays or {kind._decay(hypers) if "weight_decay" in hypers else "none": ""}
    lines = ["First the gradient is prepared, and weight decay applied, as for :ref:`every optimizer <prologue>`:", ""]
    for decay, setting in decays.items():
        lines += [setting, ""] if setting else []
        lines += math(display(preparation(decay)))
    return lines


def _conditions(tests: Iterable[Node]) -> str:
    return " and ".join(f":math:`{latex(test)}`" for test in tests)


def _equations(kind: type[Optimizer], variant: Variant) -> list[str]:
    lines = [f".. rubric:: ``{call(kind, variant.options)}``", "   :class: setting", ""]
    shown: set[Assign] = set()
    for case in variant.cases:
        if case.when:
            lines += [f"Where {_conditions(case.when)}:", ""]
        scalars = [Assign(s.target, s.value, local=True) for s in case.scalars]
        if any(s.target == "ratio" for s in scalars):
            lines += math(display(case.direction)) if case.direction else []
            lines += ["For each array, with the norms over all its elements:", "", *math(display(scalars)), "Then:", ""]
            lines += math(display(case.update))
            continue
        lines += math(display([*case.direction, *case.update]))
        new = [scalar for scalar in scalars if scalar not in shown]
        if new:
            lines += ["with, once a step,", "", *math(display(new))]
        shown.update(new)
    return lines


def _source(rule: str) -> list[str]:
    """The file that a rule stands in, folded away."""
    file = file_of(rule)
    title = f".. dropdown:: The text that the kernels are compiled from: rust/kernels/src/rules/{file.name}"
    include = f"   .. literalinclude:: /../rust/kernels/src/rules/{file.name}"
    return [title, "", include, "      :language: rust", ""]


def _kernels(name: str, kind: type[Optimizer]) -> list[str]:
    kernels = Kernels(kind)
    lines = heading("What the kernel computes", "-")
    lines += [
        "Made from the text that the kernels are compiled from; :doc:`/internals/how_it_works` says how. Names are",
        "those of the docstring; :math:`t` counts steps from 1. What stands on a line is computed from the lines above",
        "it. Numbers are taken to be above 0 where that decides between equations.",
        "",
        NOTES.get(name, ""),
        "",
    ]
    lines += [] if name in UNPREPARED else _preparations(kernels)
    for rule in dict.fromkeys(variant.rule for variant in variants(kind)):
        states = ", ".join(f":math:`{symbol(state)}`" for state in RULES[rule]["states"]) or "none"
        lines += [*heading(f"The rule ``{rule}``", "^"), f"State arrays: {states}.", ""]
        for variant in variants(kind):
            lines += _equations(kind, variant) if variant.rule == rule else []
    return lines + _source(variants(kind)[0].rule)


def _slow_weights() -> list[str]:
    lines = heading("Synchronization", "-")
    lines += ["Every k-th step, made from the rule ``interpolate``; :math:`\\mathrm{slow}` are the slow weights:", ""]
    return [*lines, *math(display(synchronization()))]


def page(name: str, kind: type[Optimizer], gallery: bool) -> str:
    """The page of one class, with the figures that use it where there is a gallery."""
    lines = heading(name, "=")
    lines += [".. currentmodule:: schuss", "", f".. autoclass:: {name}", "   :members:", ""]
    lines += ["Methods and attributes that all optimizers have: :doc:`/api/optimizer`.", ""]
    if has_rules(kind):
        lines += _kernels(name, kind)
    if issubclass(kind, schuss.Lookahead):
        lines += _slow_weights()
    if gallery:
        lines += [f".. minigallery:: schuss.{name}", "   :add-heading: In the gallery", "   :heading-level: -", ""]
    return "\n".join(lines)


def overview(kinds: Mapping[str, type[Optimizer]]) -> str:
    """The table of all optimizers and the list of their pages."""
    lines = [".. currentmodule:: schuss", "", ".. list-table::", "   :header-rows: 1", "   :widths: 16 64 20", ""]
    rows = [("Optimizer", "What it does", "State by default")]
    for name, kind in kinds.items():
        said = summary(kind).removeprefix(f"{name}: ").rstrip(".:")
        states = ""
        if has_rules(kind):
            found = [symbol(state) for state in RULES[Kernels(kind).rule({})]["states"]]
            states = ", ".join(f":math:`{state}`" for state in found) or "none"
        if issubclass(kind, schuss.Lookahead):
            states = ", ".join(filter(None, [states, "slow weights"]))
        rows.append((f":doc:`{name} </optimizers/generated/{name}>`", said[:1].upper() + said[1:], states))
    for row in rows:
        for i, cell in enumerate(row):
            lines.append(f"   {'*' if i == 0 else ' '} - {cell}".rstrip())
    lines += ["", ".. toctree::", "   :hidden:", ""]
    lines += [f"   /optimizers/generated/{name}" for name in kinds]
    return "\n".join([*lines, ""])


def write(path: Path, text: str) -> None:
    """Writes a file unless it has that content already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def write_pages(app: Any, config: Any) -> None:
    """Writes everything; what belongs to no class any more goes."""
    folder = Path(app.srcdir, "optimizers", "generated")
    kinds = optimizers()
    for name, kind in kinds.items():
        write(folder / f"{name}.rst", page(name, kind, "sphinx_gallery.gen_gallery" in app.extensions))
    write(folder / "overview.inc", overview(kinds))
    for old in folder.glob("*.rst"):
        if old.stem not in kinds:
            old.unlink()


class Prologue(SphinxDirective):
    """The preparation that every kernel begins with, as an equation."""

    def run(self) -> list[Any]:
        """One block of mathematics."""
        return self.parse_text_to_nodes("\n".join(math(display(parse(PROLOGUE)))))


def setup(app: Any) -> dict[str, bool]:
    """Runs before Sphinx looks for sources."""
    app.add_directive("prologue", Prologue)
    app.connect("config-inited", write_pages)
    return {"parallel_read_safe": True}
