"""Global settings: the number of threads and the CPU level. It knows no optimizer."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from schuss import _schuss
from schuss._core import validate

T = TypeVar("T")


def get_num_threads() -> int:
    """The number of threads that a step may use.

    The default is the environment variable ``SCHUSS_NUM_THREADS``, or else the number of CPUs available to the process.
    Small steps always use one thread; results never depend on the number.

    Returns
    -------
    int

    Raises
    ------
    RuntimeError
        The variable is not a whole number >= 1 and < 65536. Making an optimizer, and all that computes, raise it too.

    Examples
    --------
    >>> import schuss
    >>> schuss.set_num_threads(2)
    >>> schuss.get_num_threads()
    2
    """
    return _checked(_schuss.get_num_threads)


def set_num_threads(threads: int) -> None:
    """Sets the number of threads that a step may use, in the whole process.

    Parameters
    ----------
    threads : int
        At least 1; 1 means that only the calling thread works.

    Raises
    ------
    TypeError, ValueError
        It is not a whole number >= 1.

    Examples
    --------
    >>> import schuss
    >>> schuss.set_num_threads(1)
    """
    _schuss.set_num_threads(validate.whole_number("threads", threads, 1, 2**16))


def cpu_level() -> str:
    """The CPU level in use: ``"baseline"``, ``"avx2"`` or ``"avx512"``.

    It is chosen at import: the environment variable ``SCHUSS_CPU``, or else the fastest that the CPU supports.

    Returns
    -------
    str

    Raises
    ------
    RuntimeError
        The variable is not one of `cpu_levels`. Making an optimizer, and all that computes, raise it too.

    Examples
    --------
    >>> import schuss
    >>> schuss.cpu_level() in schuss.cpu_levels()
    True
    """
    return _checked(_schuss.cpu_level)


def cpu_levels() -> list[str]:
    """The CPU levels that this machine supports, slowest first; each is a valid value of ``SCHUSS_CPU``.

    Returns
    -------
    list of str

    Examples
    --------
    >>> import schuss
    >>> schuss.cpu_levels()[0]
    'baseline'
    """
    return _schuss.cpu_levels()


def show_config() -> None:
    """Prints the versions, the CPU levels found and in use, and the number of threads.

    Examples
    --------
    >>> import schuss
    >>> schuss.show_config()  # doctest: +ELLIPSIS
    schuss ...
    """
    print(f"schuss      {_schuss.__version__}")
    print(f"CPU level   {_or_error(cpu_level)} (found: {', '.join(cpu_levels())}; SCHUSS_CPU chooses)")
    print(f"threads     {_or_error(get_num_threads)} (set_num_threads or SCHUSS_NUM_THREADS)")
    print(f"NumPy       {np.__version__}")
    print(f"Python      {platform.python_version()} on {platform.system()} {platform.machine()}")


def _checked(value: Callable[[], T]) -> T:
    """A value; an error in the environment variable that it comes from is a RuntimeError, as in steps."""
    try:
        return value()
    except ValueError as error:
        raise RuntimeError(str(error)) from None


def _or_error(value: Callable[[], object]) -> object:
    """A value, or what is wrong with the environment variable that it comes from."""
    try:
        return value()
    except RuntimeError as error:
        return error
