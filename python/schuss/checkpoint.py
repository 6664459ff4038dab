"""Checkpoints: parameters and an optimizer's state in one safetensors file. It knows no optimizer class.

Arrays are the file's tensors; hyperparameters, step counts and the structure are JSON in its metadata. There is no
pickle, so loading an untrusted file executes no code. A save replaces the file as a whole: see `atomic_files`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Literal, NamedTuple, overload

import numpy as np

from schuss._arrays import atomic_files, tensor_files, trees
from schuss._arrays.tensor_files import Stored
from schuss._backends.protocol import Call, Copy
from schuss._core import loading
from schuss._core import state as _state
from schuss._core.optimizer import Optimizer

_FORMAT = 1
_METADATA = "schuss"


def save(path: str | os.PathLike[str], optimizer: Optimizer, *, include_params: bool = True) -> None:
    """Saves an optimizer's parameters and state to a safetensors file, all that a run needs to continue.

    The file is written under a temporary name in the same folder, flushed to disk, and renamed: `path` holds either the
    complete old checkpoint or the complete new one.

    Parameters
    ----------
    path : str or path
        The file to write; an existing file is replaced.
    optimizer : Optimizer
        Its parameters and its ``state_dict()`` are saved, its ``grads`` are not. A learning-rate schedule is a function
        and is not saved, but its state, if it keeps any (`schuss.schedules.reduce_on_plateau`), is.
    include_params : bool, default True
        ``False`` saves the state alone: the file is smaller, and the parameters are yours to save.

    Raises
    ------
    TypeError, ValueError
        `optimizer` is not one of this package, `path` does not name a file, or a parameter array was replaced.
    OSError
        The file cannot be written.
    RuntimeError
        Another thread is stepping, saving or loading the optimizer.

    Examples
    --------
    >>> import numpy as np, os, schuss, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "opt.safetensors")
    >>> opt = schuss.SGD({"w": np.ones(2)}, lr=0.5)
    >>> opt.step({"w": np.ones(2)})
    True
    >>> schuss.save(path, opt)
    >>> params = {"w": np.zeros(2)}
    >>> again = schuss.SGD(params, lr=0.5)
    >>> schuss.load(path, again)
    >>> again.step_count, params["w"]
    (1, array([0.5, 0.5]))
    """
    _check_optimizer(optimizer)
    with optimizer._exclusive():
        optimizer._backend.refuse_replaced(optimizer._stepped)
        write(path, optimizer, include_params)


def write(
    path: str | os.PathLike[str],
    optimizer: Optimizer,
    include_params: bool,
    content: Callable[[str, Stored], Iterator[np.ndarray]] = tensor_files.content,
) -> None:
    """Saves an optimizer that nobody else uses now; `content` gives the elements of a tensor in C order."""
    path = os.path.realpath(_path(path))  # follows symbolic links, as a plain write would
    tensors = stored_tensors(optimizer, include_params)
    header = {"format": _FORMAT, "include_params": include_params, "structure": _structure(optimizer)}
    metadata = {_METADATA: _json({**header, **_state.scalars(optimizer)})}
    with atomic_files.replacing(path) as file:
        tensor_files.write(file, tensors, metadata, content)


def _json(state: dict[str, Any]) -> str:
    """The metadata; the states of schedules may have NumPy scalars."""
    import json  # here: it would take much of the package's import time

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{trees.kind(value)} is not JSON serializable")

    places = [(i, name, value) for i, group in enumerate(state["param_groups"]) for name, value in group.items()]
    for i, name, value in places:
        try:
            json.dumps(value, default=plain)
        except (TypeError, ValueError, RecursionError) as error:
            place = f"the state of the schedule in param_groups[{i}][{name!r}]"
            raise TypeError(f"{place} cannot be saved: {error}; its state_dict() must return plain numbers") from error
    return json.dumps(state, default=plain)


@overload
def load(
    path: str | os.PathLike[str], optimizer: Optimizer, *, include_params: bool = True, strict: Literal[True] = True
) -> None: ...
@overload
def load(
    path: str | os.PathLike[str], optimizer: Optimizer, *, include_params: bool = True, strict: Literal[False]
) -> list[str]: ...
def load(
    path: str | os.PathLike[str], optimizer: Optimizer, *, include_params: bool = True, strict: bool = True
) -> list[str] | None:
    """Restores parameters and optimizer from a file of :func:`save`; training continues as if uninterrupted.

    Everything is checked first: class, structure, shapes, dtypes, hyperparameters. On an error nothing has changed.
    ``lr`` and all other hyperparameters of the groups, ``max_grad_norm`` and ``nonfinite`` come from the file, as in
    PyTorch: set what shall differ after loading. Schedules of the optimizer are kept; those with state have it
    restored.

    Parameters
    ----------
    path : str or path
        A file of :func:`save`.
    optimizer : Optimizer
        One of the same class over arrays of the same structure, shapes and dtypes.
    include_params : bool, default True
        Restore the parameters too, in place. ``False`` restores the state alone, for parameters that you restore
        yourself and for files without them.
    strict : bool, default True
        Raise if anything does not fit. ``False`` loads what fits: an array is loaded with all its states or not at all,
        and one that is not keeps its own step count for bias correction, or that of its group if this is less.

    Returns
    -------
    list of str, or None
        With ``strict=False``, a message for everything that was not loaded; else None.

    Raises
    ------
    TypeError, ValueError
        The file is not a checkpoint, is damaged, or belongs to another optimizer, or a parameter array was replaced;
        the message says which.
    OSError
        The file cannot be read.
    RuntimeError
        Another thread is stepping, saving or loading the optimizer.

    Examples
    --------
    See :func:`save`.
    """
    _check_optimizer(optimizer)
    unfit = loading.Unfit(strict)
    with prepared(path, optimizer, include_params, unfit) as found:
        found.load(optimizer)
    return None if strict else unfit.messages


class Prepared(NamedTuple):
    """A file that has been read and checked for an optimizer: its metadata, and what changes."""

    text: str
    scalars: loading.ScalarChanges
    copies: list[Copy]

    def load(self, optimizer: Optimizer, *calls: Call) -> None:
        """Restores the optimizer after these calls of functions; see `Changes.make_after`."""
        self.scalars.make(optimizer, self.copies, *calls)


@contextlib.contextmanager
def prepared(
    path: str | os.PathLike[str], optimizer: Optimizer, include_params: bool, unfit: loading.Unfit
) -> Iterator[Prepared]:
    """A context with a file that is ready to be loaded."""
    path = _path(path)
    with tensor_files.opened(path) as file, optimizer._exclusive():
        optimizer._backend.refuse_replaced(optimizer._stepped)
        try:
            found = _read(path, file, optimizer, include_params, unfit)
        except tensor_files.NotWholeError as error:
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
        yield found


def _read(path: str, file: BinaryIO, optimizer: Optimizer, include_params: bool, unfit: loading.Unfit) -> Prepared:
    stored = optimizer._backend.stored
    targets = _named(optimizer, include_params)
    structure = _structure(optimizer)
    # Names and JSON text may be longer by what is escaped in them, and there may be other tensors.
    usual = sum(len(target.name) + 100 for target in targets) + len(repr(structure))
    header = tensor_files.read_header(file, 2**20 + 16 * usual)
    state = _read_metadata(path, header.metadata)
    difference = _difference(optimizer, state["structure"], structure)
    if difference and unfit.strict:
        raise ValueError(
            f"{path} was saved for parameters of another structure than this optimizer's: {difference}; with "
            "strict=False what fits is loaded"
        )
    if include_params and not state["include_params"]:
        raise ValueError(
            f"{path} holds no parameters: restore them yourself, then load the state with include_params=False"
        )
    checked = loading.check_scalars(optimizer, state, unfit) if unfit.strict else None

    def check(target: loading.Target) -> None:
        if target.name not in header.tensors:
            raise ValueError(f"{path} lacks {target.name}")
        entry = header.tensors[target.name]
        found, wanted = (entry.shape, entry.dtype), (stored(target.value).shape, target.value.dtype.name)
        if found != wanted:
            raise ValueError(f"{path} has {target.name} as {found}, but this optimizer's is {wanted}")

    known = [name for name in header.tensors if include_params or not name.startswith("params[")]
    loaded, kept = unfit.fitting(targets, known, check)
    changes = checked or loading.check_scalars(optimizer, state, unfit, kept)
    loaded = [target for target in loaded if target.array in changes.fit]
    for at, param in zip(optimizer._suffixes, optimizer._params, strict=True):
        if include_params:
            optimizer._backend.adapt(optimizer._place("params", *at), param)
    # The file is read whole before anything changes.
    values = [own.value for own in loaded]
    tensors = [(header.tensors[own.name], stored(own.value)) for own in loaded]
    copies = list(zip(values, tensor_files.read(file, tensors), strict=True))
    return Prepared(header.metadata[_METADATA], changes, copies)


def _path(path: str | os.PathLike[str]) -> str:
    """The path as a string that names a file."""
    text = os.fsdecode(path)
    if not os.path.basename(text):
        raise ValueError(f"{text!r} is not the name of a file" if text else "the path is empty; name a file")
    try:
        usable = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise ValueError(f"{text!r} is not the name of a file: it has a character that no name can have")
    return text


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        advice = getattr(optimizer, "_refusal", "")
        if not advice and type(optimizer).__module__.startswith("torch."):
            advice = " of torch; save it with torch.save(optimizer.state_dict(), path)"
        raise TypeError(f"the optimizer must be one of schuss, got {type(optimizer).__name__}{advice}")


def _named(optimizer: Optimizer, include_params: bool) -> list[loading.Target]:
    """Every array of a checkpoint with its tensor name: the state's name and the parameter's path."""
    result: list[loading.Target] = []
    states = optimizer._states  # read once: Lookahead builds a new list at each access
    for i, (group, suffix) in enumerate(optimizer._suffixes):
        place = f"[{group}]{suffix}"
        if include_params:
            result.append(loading.Target(i, f"params{place}", optimizer._params[i]))
        names = optimizer._state_names(i)
        result += [loading.Target(i, name + place, own) for name, own in zip(names, states[i], strict=True)]
    shared = optimizer._shared.items()
    return [*result, *(loading.Target(-1, f"shared[{name!r}]", value) for name, value in shared)]


def stored_tensors(optimizer: Optimizer, include_params: bool) -> dict[str, Stored]:
    """The tensors of a checkpoint by name."""
    return {own.name: optimizer._backend.stored(own.value) for own in _named(optimizer, include_params)}


def _structure(optimizer: Optimizer) -> Any:
    """The parameters' structure for JSON, with shapes and dtypes; keys are stored as `repr`, since 1 is not "1"."""

    def describe(template: Any) -> Any:
        if isinstance(template, dict):
            return {trees.shown_key(key): describe(value) for key, value in template.items()}
        if isinstance(template, (list, tuple)):
            return [describe(value) for value in template]
        if template is None:
            return None
        array = optimizer._params[template]
        return f"{array.dtype.name}{list(array.shape)}"

    return [describe(template) for template in optimizer._templates]


def _difference(optimizer: Optimizer, saved: Any, own: list[Any]) -> str:
    """Where two structures differ first, in words; empty if they do not."""

    def between(saved: Any, own: Any, place: str) -> str:
        if isinstance(own, dict) and isinstance(saved, dict):
            for key in (*own, *saved):
                if key not in saved or key not in own:
                    return f"{place} has the key {key} {'here' if key in own else 'there'} only"
            pairs = [(saved[key], own[key], f"{place}[{key}]") for key in own]
        elif isinstance(own, list) and isinstance(saved, list):
            if len(own) != len(saved):
                return f"{place} has {len(saved)} entries there and {len(own)} here"
            pairs = [(saved[i], own[i], f"{place}[{i}]") for i in range(len(own))]
        else:
            return "" if saved == own else f"{place} is {_what(saved)} there and {_what(own)} here"
        return next(filter(None, (between(*pair) for pair in pairs)), "")

    if not isinstance(saved, list) or len(saved) != len(own):
        count = len(saved) if isinstance(saved, list) else "no"
        return f"{count} groups there and {len(own)} here"
    places = [optimizer._place("params", i, "") for i in range(len(own))]
    return next(filter(None, map(between, saved, own, places)), "")


def _what(structure: Any) -> str:
    if isinstance(structure, (dict, list)):
        return f"a {type(structure).__name__}"
    return structure if isinstance(structure, str) else repr(structure)


def _read_metadata(path: str, metadata: dict[str, Any]) -> dict[str, Any]:
    import json

    try:
        state = json.loads(metadata[_METADATA])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(f"{path} is not a checkpoint of schuss: its metadata lacks the optimizer") from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"{path} has a format that this version of schuss does not know")
    missing = [key for key in ("structure", "include_params") if key not in state]
    if missing:
        raise ValueError(f"{path} is damaged: its metadata lacks {missing[0]!r}")
    return state
