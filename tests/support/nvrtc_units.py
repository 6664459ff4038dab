"""Every unit of CUDA C++ that some optimizer can ask for, and compiling one: for the processes that share it."""

from functools import cache

from schuss import _schuss
from schuss._backends import nvrtc

DTYPES = ["float32", "float64", "float16", "bfloat16"]


def every():
    """Rules by pairs of types, centered where a class centers; the tools that run on a GPU; sums over gradients."""
    rules = [(rule, False) for rule in _schuss.rules()] + [("radam", True), ("replace", False), ("interpolate", False)]
    units = [(rule, p, g, centered) for rule, centered in rules for p in DTYPES for g in DTYPES]
    return units + [(None, p, g, False) for p in ("float32", "float64") for g in DTYPES]


@cache
def compiler():
    nvrtc.load(99)
    return _schuss.cuda_compile


def failure(unit, target):
    rule, param, grad, centered = unit
    own, sums = _schuss.cuda_source(rule or "sgd", param, grad, centered)
    try:
        compiler()(own if rule else sums, target)
    except RuntimeError as error:
        return f"{unit}: {error}"
    return None
