"""Every CUDA C++ source that an optimizer can need, and compiling one in a worker process."""

import struct
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
    nvrtc.load(99, 90)
    return _schuss.cuda_compile


def sections(elf):
    """The sections of a 64-bit ELF file by name."""
    start, (size, count, names) = struct.unpack_from("<Q", elf, 40)[0], struct.unpack_from("<HHH", elf, 58)
    heads = [struct.unpack_from("<IIQQQQ", elf, start + i * size) for i in range(count)]
    contents = [elf[offset : offset + length] for _, _, _, _, offset, length in heads]
    return {contents[names][head[0] :].split(b"\0")[0].decode(): body for head, body in zip(heads, contents)}


FRAME_SIZE, HAS_VALUE = 0x11, 4


def frames(code):
    """The bytes of local memory of each kernel in machine code, whose `.nv.info` is a list of attributes."""
    of = sections(code)
    info, found, at = of[".nv.info"], {}, 0
    while at < len(info):
        form, attribute, length = struct.unpack_from("<BBH", info, at)
        at += 4
        if (form, attribute) == (HAS_VALUE, FRAME_SIZE):
            symbol, size = struct.unpack_from("<II", info, at)
            (name,) = struct.unpack_from("<I", of[".symtab"], 24 * symbol)
            found[of[".strtab"][name:].split(b"\0")[0].decode()] = size
        at += length if form == HAS_VALUE else 0
    return found


# Divisions and roots call functions of the compiler, which save a few registers: 32 bytes were the most.
LARGEST_FRAME = 64


def failure(unit, target):
    """Why a unit does not compile, or which of its kernels need local memory."""
    try:
        code = compiler()(_schuss.cuda_source(*unit), target)
    except RuntimeError as error:
        return f"{unit}: {error}"
    found = frames(code)
    assert found
    large = {name: size for name, size in found.items() if size > LARGEST_FRAME}
    return f"{unit} for {target}: bytes of local memory {large}" if large else None
