"""The options of an optimizer as a whole: their names, defaults and checks. No parameter group overrides them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schuss._arrays import formats
from schuss._core import validate

_dtype = validate.choice("float32", "bfloat16", "int8")
_rounding = validate.choice("stochastic", "nearest")

#: Options that settle the state format, with their defaults.
STATE_FORMAT: dict[str, Any] = {
    "state_dtype": None,
    "state_rounding": "stochastic",
    "state_seed": 0,
    "master_weights": False,
}
#: All of them.
OPTIONS = ("max_grad_norm", "nonfinite", *STATE_FORMAT)


def state_format(given: Mapping[str, Any]) -> formats.StateFormat:
    """The state format that options ask for, checked as far as that goes without arrays."""
    dtype = given["state_dtype"]
    if dtype is not None:
        dtype = _dtype("state_dtype", dtype)
    if dtype == "bfloat16":
        formats.bfloat16()
    return formats.StateFormat(
        dtype,
        _rounding("state_rounding", given["state_rounding"]),
        validate.seed("state_seed", given["state_seed"]),
        validate.flag("master_weights", given["master_weights"]),
    )
