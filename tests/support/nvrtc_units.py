"""Every CUDA C++ source that an optimizer can need, and compiling one in a worker process."""

from functools import cache

from schuss import _schuss
from schuss._backends import nvrtc

DTYPES = ["float32", "float64", "float16", "bfloat16"]


def every():
    """The units: rule or tool, program, and dtypes if it has passes."""
    return _schuss.cuda_units()


def programs():
    """The programs that run on a GPU."""
    return list(dict.fromkeys((rule, program) for rule, program, _ in every()))


def sources(rule, program, param, grad):
    """The sources of a program for these dtypes."""
    wanted = [unit for unit in every() if unit[:2] == (rule, program) and unit[2] in (None, (param, grad))]
    return [_schuss.cuda_source(*unit) for unit in wanted]


@cache
def compiler():
    nvrtc.load(99)
    return _schuss.cuda_compile


def failure(unit, target):
    try:
        compiler()(_schuss.cuda_source(*unit), target)
    except RuntimeError as error:
        return f"{unit}: {error}"
    return None
