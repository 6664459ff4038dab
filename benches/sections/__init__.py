"""The sections of the speed page, one file each, in the order of the page.

A section has ``PIECES``, the names of its parts; ``measure(piece, rounds)``, which measures one of them in its own
process and returns JSON-serializable data; ``tables(data)``, where ``data`` maps pieces to results; and
``targets(data)``, a list of (what, figure, "<=" or ">=", bound). ``measure`` imports what it needs itself, so a page
can be generated from recorded figures without the benchmarked libraries.
"""

from . import cache, calls, floors, many, others, package, small_state, systems, tail

SECTIONS = {
    "others": others,
    "cache": cache,
    "floors": floors,
    "calls": calls,
    "many": many,
    "small_state": small_state,
    "tail": tail,
    "systems": systems,
    "package": package,
}
