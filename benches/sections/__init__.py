"""The sections of the speed page, one file each, in the order of the page.

A section has ``PIECES``, the names of its parts; ``measure(piece, rounds)``, which measures one of them in a process of
its own and returns what JSON can hold; ``tables(data)``, with ``data`` from piece to what was measured; and
``targets(data)``: what was promised as (what, figure, "<=" or ">=", bound). Measuring imports what it needs itself, so
that a page can be made of recorded figures where nothing is installed.
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
