"""Structures of arrays (pytrees): an array, or lists, tuples and dicts of structures, nested arbitrarily.

None is a structure without leaves. A structure is split into leaves and a template, the same structure with leaf
numbers. Leaves are numbered by the sorted keys of dicts, so that what depends on the numbers does not depend on the
order in which a dict was filled. Nothing here inspects a leaf.
"""

from __future__ import annotations

import itertools
import numbers
import sys
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from typing import Any

_DEPTH = 100  # Structures are traversed recursively, and a list may contain itself.


def flatten(structure: Any, name: str, first: int = 0) -> tuple[Any, list[tuple[str, Any]]]:
    """The template of a structure, numbered from `first`, and its leaves, each with its path as Python source.

    Raises `ValueError` with the structure's `name` if it is nested too deep.
    """
    leaves: list[tuple[str, Any]] = []

    def walk(node: Any, place: str, depth: int) -> Any:
        if depth > _DEPTH:
            raise ValueError(f"{name} is nested more than {_DEPTH} deep, or contains itself")
        if isinstance(node, dict):
            numbered = {key: walk(node[key], f"{place}[{shown_key(key)}]", depth + 1) for key in _sorted(node)}
            return {key: numbered[key] for key in node}
        if isinstance(node, (list, tuple)):
            return _like(node, [walk(value, f"{place}[{i}]", depth + 1) for i, value in enumerate(node)])
        if node is None:
            return None
        leaves.append((place, node))
        return first + len(leaves) - 1

    return walk(structure, "", 0), leaves


def check_paths(name: str, leaves: Sequence[tuple[str, Any]]) -> None:
    """Raises if two leaves of a structure have the same path."""
    if len({place for place, _ in leaves}) < len(leaves):
        raise ValueError(f"two keys of {name} have the same repr, which names arrays; give them others")


def _like(node: Any, items: list[Any]) -> Any:
    """The items in a list, tuple or named tuple, like the node."""
    if isinstance(node, list):
        return items
    return node._make(items) if hasattr(node, "_make") else tuple(items)


def importable(template: Any) -> Any:
    """A template with tuples in the place of named tuples whose class is not at the top level of its module."""
    if isinstance(template, dict):
        return {key: importable(value) for key, value in template.items()}
    if isinstance(template, (list, tuple)):
        items, kind = [importable(value) for value in template], type(template)
        found = getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind
        return _like(template, items) if isinstance(template, list) or found else tuple(items)
    return template


def entries(structure: Any) -> list[Any]:
    """The entries of a list, tuple or dict, in the order of their leaves, or the structure itself."""
    if isinstance(structure, dict):
        return [structure[key] for key in _sorted(structure)]
    return list(structure) if isinstance(structure, (list, tuple)) else [structure]


def listed(structure: Any) -> Any:
    """A list of what an iterator or a dict's `values()` gives; other structures as they are."""
    return list(structure) if isinstance(structure, (Iterator, ValuesView)) else structure


def shown_key(key: Any) -> str:
    """A key as Python source; equal numbers have the same, whatever their types."""
    return repr(_plain(key))


def _plain(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(map(_plain, key))
    if isinstance(key, str):
        return str(key)
    if isinstance(key, numbers.Integral):
        return int(key)
    if isinstance(key, numbers.Real):
        value = float(key)
        return int(value) if value.is_integer() else value if value == key else key
    return key


def in_order(template: Any) -> Any:
    """A template with its leaves in the order of their numbers."""
    if isinstance(template, dict):
        return {key: in_order(template[key]) for key in _sorted(template)}
    if isinstance(template, (list, tuple)):
        return [in_order(value) for value in template]
    return template


def _sorted(keys: Iterable[Any]) -> list[Any]:
    """Keys of a dict in an order that does not depend on how it was filled, if their `repr` does not."""
    return sorted(keys, key=_rank)


def _rank(key: Any) -> tuple[int, Any]:
    if isinstance(key, numbers.Real):
        return 0, key
    if isinstance(key, str):
        return 1, str(key)
    if isinstance(key, tuple):
        return 2, tuple(map(_rank, key))
    text = repr(key)
    return (4, "") if " at 0x" in text else (3, text)


def build(template: Any, leaf: Callable[[int], Any]) -> Any:
    """The structure of a template with each number replaced by `leaf(number)`."""
    if isinstance(template, dict):
        return {key: build(value, leaf) for key, value in template.items()}
    if isinstance(template, (list, tuple)):
        return _like(template, [build(value, leaf) for value in template])
    return None if template is None else leaf(template)


def leaves(
    template: Any, structure: Any, name: str, like: str, *, partial: bool = False
) -> Iterator[tuple[int, str, Any]]:
    """Yields number, place and leaf for each leaf of a structure that must match the template.

    None in the place of a part of the structure gives None for each of its leaves, and with `partial` so does a key
    that a dict lacks. Raises `TypeError` or `ValueError` at a mismatch: the message starts with the place (`name` and
    the path) and says what `like` has there.
    """
    if isinstance(template, dict):
        if structure is None:
            structure = dict.fromkeys(template)
        if not isinstance(structure, dict):
            advice = f"; pass dict({name})" if isinstance(structure, (ItemsView, Mapping)) else ""
            raise TypeError(f"{name} must be a dict like {like}, got {kind(structure)}{advice}")
        structure = dict(structure)  # another thread may change it meanwhile
        missing = [] if partial else [key for key in template if key not in structure]
        extra = [key for key in structure if key not in template]
        if missing or extra:
            parts = [f"lacks {_keys(missing)}"] * bool(missing) + [f"has unknown {_keys(extra)}"] * bool(extra)
            raise ValueError(f"{name} {' and '.join(parts)}; it must have the keys of {like}: {_keys(template)}")
        for key, value in template.items():
            at = f"[{shown_key(key)}]"
            yield from leaves(value, structure.get(key), name + at, like + at, partial=partial)
    elif isinstance(template, (list, tuple)):
        if structure is None:
            structure = [None] * len(template)
        if not isinstance(structure, (list, tuple)):
            objects = getattr(getattr(structure, "dtype", None), "kind", "") == "O"
            advice = f"; pass list({name})" if objects or isinstance(structure, (Iterator, ValuesView)) else ""
            raise TypeError(f"{name} must be a list or tuple like {like}, got {kind(structure)}{advice}")
        structure = list(structure)
        if len(structure) != len(template):
            raise ValueError(f"{name} has {len(structure)} entries, but {like} has {len(template)}")
        for i, value in enumerate(template):
            yield from leaves(value, structure[i], f"{name}[{i}]", f"{like}[{i}]", partial=partial)
    elif template is None:
        if structure is not None:
            raise ValueError(
                f"{name} must be None, as {like} was when the optimizer was made; if a forward pass has made that "
                "array since, make the optimizer after it"
            )
    else:
        yield template, name, structure


def containers(template: Any, structure: Any) -> Iterator[tuple[Any, list[Any]]]:
    """The lists and dicts of a structure, and what each has where the template has something; None for all else."""
    if isinstance(template, dict) and isinstance(structure, dict):
        # The stored items: a subclass may return others, or in another order.
        items = [(template.get(key), value) for key, value in dict.items(structure)]
    elif isinstance(template, (list, tuple)) and isinstance(structure, (list, tuple)):
        given = list.__iter__(structure) if isinstance(structure, list) else tuple.__iter__(structure)
        items = list(itertools.zip_longest(template, given))[: len(structure)]
    else:
        return
    if isinstance(structure, (dict, list)):
        yield structure, [None if own is None else value for own, value in items]
    for own, value in items:
        yield from containers(own, value)


def found(template: Any, structure: Any, name: str) -> Iterator[tuple[int, str, Any]]:
    """Number, place and leaf of the leaves that a structure still has where the template has them."""
    if isinstance(template, dict) and isinstance(structure, dict):
        for key in template:
            value = structure[key] if key in structure else None  # noqa: SIM401 - it skips __getitem__
            yield from found(template[key], value, f"{name}[{shown_key(key)}]")
    elif isinstance(template, (list, tuple)) and isinstance(structure, (list, tuple)):
        for i, (one, own) in enumerate(zip(template, structure, strict=False)):
            yield from found(one, own, f"{name}[{i}]")
    elif isinstance(template, int):
        yield template, name, structure


def kind(thing: Any) -> str:
    """The type of an object, and its shape if it has one, for messages."""
    shape = getattr(thing, "shape", None)
    return f"{type(thing).__name__} of shape {shape}" if shape is not None else type(thing).__name__


def _keys(keys: Any) -> str:
    return ", ".join(map(shown_key, keys))
