"""Checkpoints: an optimizer's state in one safetensors file. It knows no optimizer class.

Arrays are the file's tensors; hyperparameters, step counts and the structure are JSON in its metadata. There is no
pickle, so loading an untrusted file executes no code. A save writes a temporary file and renames it, so an interrupted
save leaves the old checkpoint.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any

import numpy as np

from schuss._core import state as _state
from schuss._core.optimizer import Optimizer

_FORMAT = 1
_METADATA = "schuss"
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "U8": "uint8"}


def save(path: str | os.PathLike[str], optimizer: Optimizer, *, include_params: bool = False) -> None:
    """Saves an optimizer's state to a safetensors file.

    The file is written under a temporary name in the same folder, flushed to disk, and renamed: `path` holds either the
    complete old checkpoint or the complete new one.

    Parameters
    ----------
    path : str or path
        The file to write; an existing file is replaced.
    optimizer : Optimizer
        Its ``state_dict()`` is saved. A learning-rate schedule is a function and is not saved, but its state, if it
        keeps any (`schuss.schedules.reduce_on_plateau`), is.
    include_params : bool, default False
        Save the parameters too.

    Raises
    ------
    TypeError
        `optimizer` is not one of this package.
    OSError
        The file cannot be written.
    RuntimeError
        Another thread is stepping, saving or loading the optimizer.

    Examples
    --------
    >>> import numpy as np, os, schuss, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "opt.safetensors")
    >>> opt = schuss.Adam({"w": np.ones(2)})
    >>> opt.step({"w": np.ones(2)})
    True
    >>> schuss.save(path, opt)
    >>> again = schuss.Adam({"w": np.ones(2)})
    >>> schuss.load(path, again)
    >>> again.step_count
    1
    """
    _check_optimizer(optimizer)
    path = os.path.realpath(os.fsdecode(path))  # follows symbolic links, as a plain write would
    with optimizer._exclusive():
        _save(path, optimizer, include_params)


def _save(path: str, optimizer: Optimizer, include_params: bool) -> None:
    import json  # here, like tempfile: together they would take nearly half of the package's import time
    import tempfile

    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {name: _in_c_order(array) for name, array in _named(optimizer, include_params)}
    header = {"format": _FORMAT, "include_params": include_params, "structure": _structure(optimizer)}
    metadata = {_METADATA: json.dumps({**header, **_state.scalars(optimizer)})}
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
    if os.path.exists(path) and not os.path.isfile(path):  # a rename would replace even a device
        raise OSError(errno.EINVAL, "not a regular file", path)
    handle, temporary = tempfile.mkstemp(prefix=f".{name[:50]}.", suffix=".tmp", dir=folder)
    os.close(handle)
    try:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _flush_folder(folder)


def load(path: str | os.PathLike[str], optimizer: Optimizer, *, include_params: bool = False) -> None:
    """Restores an optimizer from a file of :func:`save`; training then continues exactly as if uninterrupted.

    Everything is checked first: class, structure, shapes, dtypes, hyperparameters. On an error nothing has changed. The
    optimizer's learning-rate schedules are kept; those with state have it restored.

    Parameters
    ----------
    path : str or path
        A file of :func:`save`.
    optimizer : Optimizer
        One of the same class over arrays of the same structure, shapes and dtypes.
    include_params : bool, default False
        Restore the parameters too, in place; the file must have been saved with them.

    Raises
    ------
    TypeError, ValueError
        The file is not a checkpoint, is damaged, or belongs to another optimizer; the message says which.
    OSError
        The file cannot be read.
    RuntimeError
        Another thread is stepping, saving or loading the optimizer.

    Examples
    --------
    See :func:`save`.
    """
    _check_optimizer(optimizer)
    path = os.fsdecode(path)
    open(path, "rb").close()  # for Python's own error if the file cannot be read
    with optimizer._exclusive():
        _load(path, optimizer, include_params)


def _load(path: str, optimizer: Optimizer, include_params: bool) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            state = _read_metadata(path, file.metadata())
            if state["structure"] != _structure(optimizer):
                raise ValueError(f"{path} was saved for parameters of another structure than this optimizer's")
            if include_params and not state["include_params"]:
                raise ValueError(f"{path} holds no parameters; it was saved without include_params=True")
            targets = list(_named(optimizer, include_params))
            stored = set(file.keys())
            take_scalars = _state.check_scalars(optimizer, state)
            for name, target in targets:
                if name not in stored:
                    raise ValueError(f"{path} lacks {name}")
                entry = file.get_slice(name)
                dtype = _DTYPES.get(entry.get_dtype(), entry.get_dtype())
                found, wanted = (tuple(entry.get_shape()), dtype), (target.shape, target.dtype.name)
                if found != wanted:
                    raise ValueError(f"{path} has {name} as {found}, but this optimizer's is {wanted}")
            for at, param in zip(optimizer._suffixes, optimizer._params, strict=True):
                if include_params:
                    optimizer._backend.adapt(optimizer._place("params", *at), param)
            # Only one tensor at a time is in memory twice; opening the file has checked that it is complete.
            for name, target in targets:
                target[...] = file.get_tensor(name)
            take_scalars()
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"the optimizer must be one of schuss, got {type(optimizer).__name__}")


def _named(optimizer: Optimizer, include_params: bool) -> list[tuple[str, np.ndarray]]:
    """Every array of a checkpoint with its tensor name: the state's name and the parameter's path."""
    result = []
    states = optimizer._states  # read once: Lookahead builds a new list at each access
    for i, (group, suffix) in enumerate(optimizer._suffixes):
        place = f"[{group}]{suffix}"
        if include_params:
            result.append((f"params{place}", optimizer._params[i]))
        names = optimizer._state_names(i)
        result += [(name + place, state) for name, state in zip(names, states[i], strict=True)]
    return [*result, *((f"shared[{name!r}]", value) for name, value in optimizer._shared.items())]


def _structure(optimizer: Optimizer) -> Any:
    """The parameters' structure for JSON, with shapes and dtypes; keys are stored as `repr`, since 1 is not "1"."""

    def describe(template: Any) -> Any:
        if isinstance(template, dict):
            return {repr(key): describe(value) for key, value in template.items()}
        if isinstance(template, (list, tuple)):
            return [describe(value) for value in template]
        array = optimizer._params[template]
        return f"{array.dtype.name}{list(array.shape)}"

    names = {f"[{group}]{suffix}" for group, suffix in optimizer._suffixes}
    if len(names) < len(optimizer._suffixes):
        raise ValueError("two keys of the parameters have the same repr, so a file cannot tell them apart")
    return [describe(template) for template in optimizer._templates]


def _read_metadata(path: str, metadata: dict[str, str] | None) -> dict[str, Any]:
    import json

    try:
        state = json.loads((metadata or {})[_METADATA])
    except (KeyError, ValueError, RecursionError):
        raise ValueError(f"{path} is not a checkpoint of schuss: its metadata lacks the optimizer") from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"{path} has a format that this version of schuss does not know")
    missing = [key for key in ("structure", "include_params") if key not in state]
    if missing:
        raise ValueError(f"{path} is damaged: its metadata lacks {missing[0]!r}")
    return state


def _in_c_order(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(array.shape)


def _mode(path: str) -> int:
    """The permissions of the replaced file, or default ones for a new file: a temporary file's are stricter."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(os.stat(path).st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _flush_folder(folder: str) -> None:
    """Flushes the rename itself to disk; not every system can open a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
