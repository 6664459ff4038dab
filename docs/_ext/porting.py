"""Makes the tables of the porting pages from `peers`: what the package does not have is shown as not available."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import Any

from peers import TABLES

import schuss

ABSENT = "not available"


def found(name: str) -> Any:
    """What a dotted name of ours stands for, None if the package does not have it."""
    return reduce(lambda thing, part: getattr(thing, part, None), name.split("."), schuss)


def is_name(ours: str) -> bool:
    """Whether a cell is a name, and not a call or a sentence."""
    return re.fullmatch(r"[\w.]+", ours) is not None


def remark(text: str) -> str:
    """A remark without links to what the package does not have; roles, such as ``:doc:``, stay as they are."""
    return re.sub(r"(?<![`:])`(\w+)`(?!`)", lambda m: m[0] if found(m[1]) else f"``{m[1]}``", text)


def cells(row: tuple[Any, ...]) -> tuple[str, str, str]:
    """A row of a table, as reStructuredText."""
    peer, ours, *arguments, text = row
    peers = ", ".join(f"``{each}``" for each in peer.split(", ")) if "(" not in peer else f"``{peer}``"
    peers = peer if peer.count(" ") > peer.count(", ") and "(" not in peer else peers
    options = "".join(arguments)
    if ours is None:
        return peers, ABSENT, remark(text)
    if not is_name(ours):
        return peers, f"``{ours}``" if "(" in ours or "lambda" in ours else ours, remark(text)
    if found(ours) is None:
        return peers, ABSENT, "not yet"
    shown = f"`{ours}`" + (f" with ``{options}``" if options else "")
    return peers, shown, remark(text)


def table(name: str) -> str:
    """A table of `peers`."""
    rows, head = TABLES[name]
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 28 38 34", "   :class: porting", ""]
    for row in [(head, "schuss", "Remarks"), *map(cells, rows)]:
        lines += [f"   {'  -' if i else '* -'} {one}".rstrip() for i, one in enumerate(row)]
    return "\n".join([*lines, ""])


def write_tables(app: Any, config: Any) -> None:
    """Writes the tables that have changed."""
    for name in TABLES:
        path = Path(app.srcdir) / "generated" / f"porting_{name}.inc"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != table(name):
            path.write_text(table(name), encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Registers `write_tables`, which runs before Sphinx looks for sources."""
    app.connect("config-inited", write_tables)
    return {"parallel_read_safe": True}
