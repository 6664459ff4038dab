"""The threads of NumPy's BLAS. It knows no optimizer; the extension module runs the threads."""

from __future__ import annotations

import ctypes
import re
import sys
from typing import Any

import numpy as np
from numpy.linalg import _umath_linalg

from schuss import _schuss


def share_threads_with_blas(share: bool = True) -> None:
    """Runs matrix products of NumPy on threads that sleep soon, so that a step after a product gets all CPUs.

    OpenBLAS, which NumPy's wheels bring, keeps its threads awake for about 30 milliseconds after a product. They hold
    the CPUs, so that a step right after it is hardly faster on two threads than on one. From this call on, threads of
    this package do OpenBLAS's work, in the whole process; they fall asleep 60 microseconds after it. Products have the
    same bits, and their number of threads is still OpenBLAS's.

    It is for processes that have their CPUs for themselves. Where others use these too, products may take several times
    as long, because a thread that sleeps gets a CPU later than one that never gave it back.

    It may be called at any time, also while other threads compute, and more than once; it has no effect on SciPy's own
    OpenBLAS. LU factorizations (``np.linalg.solve``, ``inv`` and ``det``) go on using OpenBLAS's threads. So does
    everything if OpenBLAS has more threads than half of its maximum, which is 64 in NumPy's wheels.

    Parameters
    ----------
    share : bool, default True
        False undoes it: OpenBLAS's own threads do its work again.

    Raises
    ------
    TypeError
        ``share`` is not a bool.
    RuntimeError
        NumPy uses another BLAS, or an OpenBLAS that cannot be told to use other threads. It can in NumPy's wheels for
        Linux and macOS since NumPy 2.2, except those that use Apple's Accelerate.

    Examples
    --------
    >>> import schuss
    >>> schuss.share_threads_with_blas()  # doctest: +SKIP
    >>> schuss.share_threads_with_blas(False)
    """
    if not isinstance(share, bool):
        raise TypeError(f"share must be True or False, got {share!r}")
    _schuss.share_threads_with_blas(share, _openblas() if share else None)


def _openblas() -> tuple[list[int], int]:
    """The addresses of what the extension module needs of NumPy's OpenBLAS, and how many threads it may have."""
    # Names are looked up in this library and in those that it is linked with.
    library = ctypes.CDLL(_umath_linalg.__file__)

    def function(name: str) -> Any:
        for full in (name, f"scipy_{name}64_", f"{name}64_", f"scipy_{name}"):
            if hasattr(library, full):
                return getattr(library, full)
        raise AttributeError(name)

    try:
        names = "openblas_set_threads_callback_function", "exec_blas_async", "exec_blas_async_wait", "blas_memory_alloc"
        addresses = [ctypes.cast(function(name), ctypes.c_void_p).value or 0 for name in names]
        addresses.append(ctypes.addressof(ctypes.c_int.in_dll(library, "blas_num_threads")))
        config = function("openblas_get_config")
        config.restype = ctypes.c_char_p
        most = re.search(rb"MAX_THREADS=(\d+)", config())
        own_threads = function("openblas_get_parallel")() == 1  # 2 if they are OpenMP's
    except (AttributeError, ValueError):
        addresses, most, own_threads = [], None, False
    # OpenBLAS for Windows does not ask its callback; structures were looked up for 64-bit systems only.
    if not most or not own_threads or sys.platform == "win32" or sys.maxsize < 2**32:
        raise RuntimeError(
            f"the threads of NumPy's BLAS, {_blas_name()}, cannot be shared: that needs the OpenBLAS of NumPy's wheels "
            "for Linux or macOS, since NumPy 2.2; pip install -U numpy installs it. Or let BLAS's threads sleep soon "
            "after a product: set OPENBLAS_THREAD_TIMEOUT=4 (OpenBLAS), KMP_BLOCKTIME=0 (MKL) or "
            "OMP_WAIT_POLICY=passive (OpenMP) before Python starts"
        )
    return addresses, int(most[1])


def _blas_name() -> str:
    """What NumPy was built with."""
    try:
        built: Any = np.show_config(mode="dicts")  # since NumPy 1.25
        blas = built["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas.get('version', '')}".strip()
    except (TypeError, KeyError):
        return "which numpy.show_config() names"
