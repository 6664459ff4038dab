"""The sections of the speed page, one file each, in the order of the page.

A section has ``PIECES``, the names of its parts; ``measure(piece, rounds)``, which measures one part and returns
JSON-serializable data; ``tables(data)``, where ``data`` maps pieces to results; and ``targets(data)``, a list of (what,
figure, "<=" or ">=", bound). Only ``measure`` imports the benchmarked libraries, so that the page can be generated
without them.
"""

from . import (
    backward,
    cache,
    calls,
    floors,
    many,
    memory,
    others,
    package,
    packages,
    products,
    pytorch,
    small_state,
    systems,
    tail,
)

SECTIONS = {
    "others": others,
    "cache": cache,
    "memory": memory,
    "floors": floors,
    "calls": calls,
    "many": many,
    "small_state": small_state,
    "pytorch": pytorch,
    "backward": backward,
    "tail": tail,
    "systems": systems,
    "products": products,
    "packages": packages,
    "package": package,
}
