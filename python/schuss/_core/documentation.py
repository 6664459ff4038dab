"""The documentation of parameters that many classes have, written once and put into their docstrings.

A docstring says what its class computes and documents its own parameters, in numpydoc's sections. What it leaves out of
the section "Parameters" comes from here: the arrays, the usual hyperparameters and the options of every optimizer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from schuss._core.declaration import REQUIRED, Field

_PARAMS = """\
params : array, list, tuple, dict, or list of group dicts
    Arrays to update in place: writable, contiguous, float32, float64, float16 or bfloat16."""

# "{}" is the default.
_USUAL = {
    "lr": r"""lr : float or callable{}
    Learning rate :math:`\eta`, >= 0, or a function of the step that returns it; the first step is 0.""",
    "betas": r"""betas : pair of float{}
    :math:`\beta_1, \beta_2` in [0, 1).""",
    "eps": r"""eps : float{}
    :math:`\epsilon` >= 0.""",
    "weight_decay": r"""weight_decay : float{}
    L2: ``weight_decay * p`` is added to the gradient.""",
    "maximize": """\
maximize : bool{}
    Ascend instead of descend.""",
    "max_grad_norm": """\
max_grad_norm : float, optional
    Scale all gradients so that their global norm is at most this, inside the step.""",
    "nonfinite": """\
nonfinite : {{"propagate", "skip", "error"}}{}
    What to do about NaN and infinities in gradients.""",
    "state_dtype": """\
state_dtype : {{"float32", "bfloat16"}}, optional
    What the state is kept in; by default what the update is computed in.""",
    "state_rounding": """\
state_rounding : {{"stochastic", "nearest"}}{}
    How a smaller state is rounded.""",
    "state_seed": """\
state_seed : int{}
    What the random bits of stochastic rounding depend on, beside the step and the place.""",
    "master_weights": """\
master_weights : bool{}
    Keep a float32 copy of float16 or bfloat16 parameters in the state and update that; the parameters are rounded
    from it.""",
}

_RAISES = """\
Raises
------
TypeError, ValueError
    An array or a hyperparameter cannot be used; the message names it."""

_SECTION = re.compile(r"^[A-Z][A-Za-z ]+\n-+$", re.MULTILINE)
_INDENT = re.compile(r"^( *)Parameters\n", re.MULTILINE)


def completed(doc: str | None, fields: Mapping[str, Field], takes_int8: bool) -> str | None:
    """A class's docstring with what it leaves out; one without a section "Parameters" stays as it is."""
    found = _INDENT.search(doc or "")
    if doc is None or found is None:
        return doc
    indent = found[1]
    text = re.sub(rf"^{indent}", "", doc, flags=re.MULTILINE)
    starts = [match.start() for match in _SECTION.finditer(text)]
    sections = [text[a:b].rstrip() for a, b in zip([0, *starts], [*starts, len(text)], strict=True)]
    at = next(i for i, section in enumerate(sections) if section.startswith("Parameters\n"))
    head, rule, *lines = sections[at].split("\n")
    own = re.findall(r"^\S.*(?:\n(?:[ ].*)?)*", "\n".join(lines), re.MULTILINE)
    documented = {
        name: entry.rstrip() for entry in own for name in entry.partition(" : ")[0].split("\n")[0].split(", ")
    }
    entries = [documented.get("params", _PARAMS)]
    for name, field in fields.items():
        if not field.init:
            continue
        entry = documented.get(name) or _usual(field, takes_int8)
        entries += [entry] if entry and entry not in entries else []
    sections[at] = "\n".join([head, rule, *entries])
    if not any(section.startswith("Raises\n") for section in sections):
        sections.insert(at + 1, _RAISES)
    return re.sub(r"^(?=.)", indent, "\n\n".join(sections), flags=re.MULTILINE).removeprefix(indent) + "\n" + indent


def _usual(field: Field, takes_int8: bool) -> str:
    default = "" if field.default is REQUIRED else f", default {_shown(field.default)}"
    text = _USUAL.get(field.name, "").format(default)
    return text.replace('"bfloat16"}', '"bfloat16", "int8"}') if takes_int8 else text


def _shown(value: Any) -> str:
    """A default as documentation writes it."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float) and 0 < value < 0.1:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return repr(value)
