"""Every unit of CUDA C++ that some optimizer can ask for, and compiling one: for the processes that share it."""

from functools import cache

from schuss import _schuss
from schuss._backends import nvrtc

DTYPES = ["float32", "float64", "float16", "bfloat16"]
#: Tools with their programs; rules say theirs.
TOOLS = {"clip_norm": "step", "scale": "step", "lookahead": "sync", "clamp": "step", "centralize": "step", "copy": "step"}


def programs():
    """The programs that run on a GPU: of rules, then of tools."""
    rules = [(rule, program) for rule, one in _schuss.rules().items() for program in one["programs"]]
    return [(rule, program) for rule, program in [*rules, *TOOLS.items()] if _schuss.cuda_refuses(rule) is None]


def every():
    """Programs by pairs of types."""
    return [(*program, param, grad) for program in programs() for param in DTYPES for grad in DTYPES]


@cache
def compiler():
    nvrtc.load(99)
    return _schuss.cuda_compile


def failure(unit, target):
    try:
        for source in _schuss.cuda_source(*unit):
            compiler()(source, target)
    except RuntimeError as error:
        return f"{unit}: {error}"
    return None
