"""Breaks the wide equations of docstrings: what stands side by side there gets a line each on a page."""

from __future__ import annotations

import re
from typing import Any

#: About what fits beside the navigation of a page.
WIDTH = 95


def broken(equation: str) -> list[str]:
    r"""The lines of an equation; one that is wide has a line for each part between ``\quad``.

    >>> broken(r"a = b, \qquad c = d")
    ['a = b, \\qquad c = d']
    >>> broken(r"a = b, \qquad c = " + "d" * 100)[0]
    '& a = b \\\\'
    """
    parts = re.split(r",?\s*\\q?quad\s*", equation)
    if len(equation) <= WIDTH or len(parts) == 1:
        return [equation]
    return [f"& {part} \\\\" for part in parts[:-1]] + [f"& {parts[-1]}"]


def break_equations(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Rewrites the ``math`` directives of a docstring."""
    result: list[str] = []
    i = 0
    while i < len(lines):
        found = re.match(r"( *)\.\. math::(.*)", lines[i])
        i += 1
        if not found:
            result.append(lines[i - 1])
            continue
        body = [found[2].strip()]
        while i < len(lines) and (not lines[i].strip() or lines[i].startswith(found[1] + "   ")):
            body.append(lines[i].strip())
            i += 1
        equations = broken(" ".join(filter(None, body)))
        result += [f"{found[1]}.. math::", "", *(f"{found[1]}   {line}" for line in equations), ""]
    lines[:] = result


def setup(app: Any) -> dict[str, bool]:
    """Comes after numpydoc, which has the same occasion."""
    app.connect("autodoc-process-docstring", break_equations, priority=900)
    return {"parallel_read_safe": True}
