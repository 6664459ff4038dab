"""Documentation of the parameters that many classes share, written once and inserted into their docstrings.

A class's docstring says what it computes and documents its own parameters, in numpydoc sections. The parameters that it
omits are filled in from here: arrays, common hyperparameters and options. Nothing here knows a class.
"""

from __future__ import annotations

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
    "betas": r"""betas : pair of float or callable{}
    :math:`\beta_1, \beta_2` in [0, 1), or a function of the step that returns them.""",
    "eps": r"""eps : float{}
    :math:`\epsilon` >= 0; 0 counts as the smallest number that makes 0 / 0 zero.""",
    "weight_decay": r"""weight_decay : float or callable{}
    L2: ``weight_decay * p`` is added to the gradient. A function of the step, such as a schedule, returns it.""",
    "decoupled_weight_decay": r"""decoupled_weight_decay : bool{}
    Multiply the parameter by ``1 - lr * weight_decay`` first, as in AdamW; ``False`` is L2.""",
    "cautious": """cautious : {{"mean", "plus_one"}}, optional
    Only elements move whose update agrees with the sign of the gradient, multiplied by 1 over their share of the
    array's elements, at least 0.001; or with ``"plus_one"`` by the number of all elements over one more than theirs
    (Liang et al., arXiv:2411.16085). Weight decay acts on all elements.""",
    "maximize": """\
maximize : bool{}
    Ascend instead of descend.""",
    "max_grad_norm": """\
max_grad_norm : float, optional
    Scale all gradients so that their global norm is at most this, inside the step.""",
    "track_grad_norm": """\
track_grad_norm : bool{}
    Measure the global norm of the gradients in each step, for ``grad_norm``, without a bound on it.""",
    "nonfinite": """\
nonfinite : {{"propagate", "skip", "error"}}{}
    What to do about NaN and infinities in gradients.""",
    "state_dtype": """\
state_dtype : {{"float32", "bfloat16"}}, optional
    The dtype that the state is stored in; by default the one that the update is computed in.""",
    "state_rounding": """\
state_rounding : {{"stochastic", "nearest"}}{}
    How state is rounded to a smaller dtype.""",
    "state_seed": """\
state_seed : int{}
    Seed of stochastic rounding; its random bits depend on this, the step and the element's position.""",
    "master_weights": """\
master_weights : bool{}
    Keep a float32 copy of float16 or bfloat16 parameters in the state and update that; the parameters are rounded
    from it. Others have no copy.""",
}

_RAISES = """\
Raises
------
TypeError, ValueError
    An array or a hyperparameter cannot be used; the message names it."""


def completed(doc: str, fields: Mapping[str, Field], takes_int8: bool) -> str:
    """A class's docstring with the missing parameters added; one without a section "Parameters" is unchanged."""
    lines = doc.split("\n")
    start = next((i for i, line in enumerate(lines) if line.strip() == "Parameters"), None)
    if start is None:
        return doc
    indent = lines[start].removesuffix("Parameters")
    end = next((i for i in range(start + 2, len(lines) - 1) if set(lines[i + 1].strip()) == {"-"}), len(lines)) - 1
    entries: list[list[str]] = []
    for line in lines[start + 2 : end]:
        if line and not line.removeprefix(indent).startswith(" "):
            entries.append([])
        if line:
            entries[-1].append(line.removeprefix(indent))
    documented = {}
    for entry in entries:
        for name in entry[0].partition(" : ")[0].split(", "):
            documented[name] = "\n".join(entry)
    complete = [documented.get("params", _PARAMS)]
    for name, field in fields.items():
        text = documented.get(name) or _usual(field, takes_int8)
        if field.init and text and text not in complete:
            complete.append(text)
    middle = "\n".join([*complete, "", *([] if "Raises" in map(str.strip, lines) else [_RAISES, ""])]).split("\n")
    return "\n".join([*lines[: start + 2], *(line and indent + line for line in middle), *lines[end + 1 :]])


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
