"""Writes a file as a whole: its path has the complete old one or the complete new one. It knows no format.

A new file has a temporary name in the same folder, is flushed to disk, and renamed. What a killed process has left is
removed by the next that writes to this path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

#: The end of temporary files' names.
_SUFFIX = ".schuss.tmp"


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A context with a new file that replaces the one at `path`, which is absolute; not after an error in the block."""
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
    if os.path.exists(path) and not os.path.isfile(path):  # a rename would replace even a device
        raise OSError(errno.EINVAL, "not a regular file", path)
    with _temporary(folder, f".{name[:50]}.") as (temporary, file):
        try:
            yield file
            os.fsync(file.fileno())
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error}") from error
        if os.path.exists(path):
            os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))
        if os.name == "nt":  # where an open file cannot be renamed
            file.close()
        os.replace(temporary, path)
    _flush_folder(folder)


@contextlib.contextmanager
def _temporary(folder: str, start: str) -> Iterator[tuple[str, BinaryIO]]:
    """A new file with the usual permissions, by its name and open; removes it after an error.

    Its lock says that somebody is writing it: those without one were left by saves that were killed.
    """
    for entry in os.listdir(folder):
        if entry.startswith(start) and entry.endswith(_SUFFIX) and len(entry) == len(start) + 16 + len(_SUFFIX):
            _remove_if_left(os.path.join(folder, entry))
    path, file = _created(folder, start)
    try:
        with file:
            try:
                yield path, file
            except BaseException:
                with contextlib.suppress(OSError):  # what is still to be written may not fit either
                    file.close()
                raise
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _created(folder: str, start: str) -> tuple[str, BinaryIO]:
    """The path of a new file, and the file, open and locked."""
    while True:
        path = os.path.join(folder, f"{start}{os.urandom(8).hex()}{_SUFFIX}")
        try:
            file = open(path, "xb")  # noqa: SIM115 - a file object: one that an interrupt drops is closed
            # Another save may have found it before it was locked, and have taken it for one that was left.
            if _lock(file.fileno()) is not False and os.path.exists(path):
                return path, file
            file.close()
        except OSError:  # it was not created
            raise
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise


def _lock(handle: int) -> bool | None:
    """Locks a file until its handle is closed; false if somebody else has, None where files have no such locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _remove_if_left(path: str) -> None:
    with contextlib.suppress(OSError), open(path, "r+b") as file:
        if _lock(file.fileno()):
            os.unlink(path)


def _flush_folder(folder: str) -> None:
    """Flushes the rename itself to disk; not every system can open a folder."""
    handles: list[int] = []
    with contextlib.suppress(OSError):
        try:
            handles.extend(map(os.open, [folder], [os.O_RDONLY]))  # in one call, so that an interrupt loses none
            os.fsync(handles[0])
        finally:
            for handle in handles:
                os.close(handle)
