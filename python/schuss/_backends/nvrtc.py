"""Finds NVRTC, the runtime compiler of CUDA C++, which the driver does not include. It knows no arrays."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import importlib.util
import os
import re
import sys

from schuss import _schuss

_FILES = ("nvrtc64_*_0.dll",) if os.name == "nt" else ("libnvrtc.so.*",)
_NAMES = ("nvrtc64_130_0.dll", "nvrtc64_120_0.dll") if os.name == "nt" else ("libnvrtc.so.13", "libnvrtc.so.12")


def load(newest: int, arch: int) -> tuple[int, int]:
    """Loads NVRTC with a major version of at most `newest` that compiles for `arch`, and returns its version.

    `arch` is a device's architecture, such as 90 for sm_90.

    Search order: the environment variable ``SCHUSS_NVRTC`` (only that, if set); a library that the process has already
    loaded; NVIDIA's wheels; CUDA toolkits; the dynamic loader's search path.

    Raises `RuntimeError`, which says what to install, if none is found.
    """
    own = os.environ.get("SCHUSS_NVRTC")
    candidates = [own] if own else [*_loaded(), *_in_wheels(), *_in_toolkits(), *_NAMES]
    if sys.platform == "win32":  # NVRTC loads this library by its bare name, which finds what is loaded already
        folders = filter(None, dict.fromkeys(map(os.path.dirname, candidates)))
        for path in (path for folder in folders for path in glob.glob(os.path.join(folder, "nvrtc-builtins64_*.dll"))):
            ctypes.WinDLL(path)
    try:
        return _schuss.cuda_nvrtc(candidates, newest, arch)
    except RuntimeError as error:
        if own:
            raise RuntimeError(f"SCHUSS_NVRTC names no NVRTC that can be used: {error}") from error
        if newest < 12:
            raise RuntimeError(
                f"the NVIDIA driver is for CUDA {newest}, and the CUDA compiler of pip needs 12: update the driver, or "
                f"set SCHUSS_NVRTC to the path of an NVRTC of CUDA 11.7 or 11.8"
            ) from error
        package = "nvidia-cuda-nvrtc" if newest >= 13 and arch >= 75 else "nvidia-cuda-nvrtc-cu12"
        raise RuntimeError(
            f"NVRTC, the CUDA compiler, was not found, and the GPU's kernels are compiled when first used: pip install "
            f"{package}, install the CUDA toolkit, or set SCHUSS_NVRTC to the path of {_NAMES[0]}"
        ) from error


def _loaded() -> list[str]:
    """Libraries that PyTorch or CuPy have loaded into this process."""
    with contextlib.suppress(OSError), open("/proc/self/maps") as maps:
        found = dict.fromkeys(line.split(maxsplit=5)[-1].strip() for line in maps if "libnvrtc.so" in line)
        return list(found)
    return []


def _in_wheels() -> list[str]:
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        spec = importlib.util.find_spec("nvidia")
        folders = list(spec.submodule_search_locations or ()) if spec else []
        return _files(*(os.path.join(folder, "*", place) for folder in folders for place in ("lib", "bin", "bin/*")))
    return []


def _in_toolkits() -> list[str]:
    roots = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), sys.prefix, "/usr/local/cuda"]
    places = ("lib64", "lib", "bin", "bin/x64")
    return _files(*(os.path.join(root, place) for root in roots if root for place in places))


def _files(*folders: str) -> list[str]:
    """NVRTC libraries in these folders, newest version first."""
    found = [path for folder in folders for name in _FILES for path in glob.glob(os.path.join(folder, name))]
    version = re.compile(r"(?:\.so\.|nvrtc64_)(\d+)")
    numbered = [
        (int(match[1]) // (10 if os.name == "nt" else 1), path) for path in found if (match := version.search(path))
    ]
    return [path for _, path in sorted(numbered, key=lambda entry: -entry[0])]
