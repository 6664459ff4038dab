"""Arranges the docstrings of optimizers for their pages: the example comes first, and every symbol is explained.

An example is moved from the docstring to the page; what the letters of the equations stand for is put after them.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from rule_latex import tex
from rule_tree import names
from variants import Kernels, variants

import schuss
from schuss import _schuss
from schuss._core.optimizer import Optimizer
from schuss._core.rules import RULES

WORDS = {"p": "a parameter", "g": "its gradient", "t": "the number of the step, from 1"}
SCOPES = {"row": "for each row", "col": "for each column", "array": "for each array", "all": "for all arrays"}


def _section(lines: list[str], title: str) -> tuple[int, int]:
    """The first line of a numpydoc section and the line after its last; both the end if there is none."""
    heads = [i for i in range(len(lines) - 1) if re.fullmatch(r"-{3,}", lines[i + 1]) and lines[i]]
    begin = next((i for i in heads if lines[i] == title), len(lines))
    return begin, next((i for i in heads if i > begin), len(lines))


def example(kind: type[Optimizer]) -> list[str]:
    """The lines of a class's example."""
    lines = (inspect.getdoc(kind) or "").split("\n")
    begin, end = _section(lines, "Examples")
    return lines[begin + 2 : end]


def _origin(kernels: Kernels, name: str) -> str:
    """The options that a rule's hyperparameter is computed from, found by changing each."""
    usual, made_of = kernels.values({}).get(name), []
    for option, value in kernels.defaults.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            changed = kernels.values({option: value / 2 + 0.125}).get(name)
        elif isinstance(value, tuple):
            changed = kernels.values({option: tuple((each or 0.0) / 2 + 0.125 for each in value)}).get(name)
        else:
            continue
        made_of += [option] if changed != usual else []
    if not made_of:
        return ""
    shown = " and ".join(f"``{option}``" for option in made_of)
    return shown if len(made_of) == 1 and usual == kernels.defaults[made_of[0]] else f"computed from {shown}"


def symbols(kind: type[Optimizer]) -> list[str]:
    """What the letters in the equations of a class stand for, in one paragraph."""
    kernels, found = Kernels(kind), variants(kind)
    lines = [line for each in found for stages in each.programs.values() for stage in stages for line in stage.lines]
    used = {name for line in lines for name in (line.name, *names(line.value))}
    entries = [f":math:`{name}` is {words}" for name, words in WORDS.items() if name in used]
    tuples = {
        f"{name.removesuffix('s')}{i}": f"``{name}[{i - 1}]``"
        for name, value in kernels.defaults.items()
        if isinstance(value, tuple)
        for i in range(1, len(value) + 1)
    }
    known = {**{name: f"``{name}``" for name in kernels.defaults}, **tuples, "initial_lr": "the first ``lr``"}
    known |= {
        name: _origin(kernels, name)
        for rule in {v.rule for v in found}
        for name in RULES[rule].hypers
        if name not in known
    }
    for name, words in known.items():
        if words and name in used and not tex(name).startswith(r"\mathrm"):
            entries.append(f":math:`{tex(name)}` is {words}")
    states = {}
    for rule in dict.fromkeys(each.rule for each in found):
        for state in _schuss.rules()[rule]["states"]:
            if state["scope"] != "backup":
                initial = f"{state['initial']:g}" if isinstance(state["initial"], float) else f"``{state['initial']}``"
                words = " ".join(filter(None, [f":math:`{tex(state['name'])}`", SCOPES.get(state["scope"], "")]))
                states.setdefault(initial, dict[str, None]())[words] = None
    starts = [f"{', '.join(words)} at {initial}" for initial, words in states.items()]
    tail = f" The state starts with {'; '.join(starts)}." if starts else " There is no state."
    return [f"{', '.join(entries)}.{tail}", ""]


def arrange(app: Any, what: str, name: str, kind: Any, options: Any, lines: list[str]) -> None:
    """Takes the example out of the docstring of an optimizer, and adds the symbols before its parameters."""
    if what != "class" or not issubclass(kind, Optimizer) or kind is Optimizer:
        return
    begin, end = _section(lines, "Examples")
    del lines[begin:end]
    if kind in schuss.OPTIMIZERS.values():
        begin, _ = _section(lines, "Parameters")
        lines[begin:begin] = symbols(kind)


def setup(app: Any) -> dict[str, bool]:
    """Registers `arrange`, before numpydoc reads the docstring."""
    app.connect("autodoc-process-docstring", arrange, priority=100)
    return {"parallel_read_safe": True}
