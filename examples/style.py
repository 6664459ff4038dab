"""Colours of the example figures: the same optimizer has the same colour, and the same dashes, in every one of them.

The palette is Okabe and Ito's, which stays apart for readers with any of the common colour blindnesses. It has too few
colours for every optimizer, so a few of Paul Tol's stand beside them, and relatives share a colour and differ in their
dashes: Lookahead around an optimizer has that optimizer's colour. Those without an entry here differ in dashes too.
"""

from itertools import product

import schuss

INK = "#222222"  # text
FAINT = "#D9D9D9"  # grids and guides

# name of the figure's line -> (colour, dashes as matplotlib reads them)
STYLES = {
    "SGD": ("#7A7A7A", "-"),
    "SGD momentum": ("#56B4E9", "-"),
    "SGD Nesterov": ("#0072B2", "-"),
    "Adagrad": ("#009E73", "-"),
    "RMSprop": ("#CC79A7", "-"),
    "Adam": ("#D55E00", "-"),
    "AdamW": ("#E69F00", "-"),
    "NAG": ("#0072B2", (0, (5, 1.5))),
    "RAdam": ("#332288", "-"),
    "Lookahead(Adam)": ("#D55E00", (0, (5, 1.5))),
    "Ranger": ("#332288", (0, (5, 1.5))),
    "LARS": ("#000000", "-"),
    "LAMB": ("#882255", "-"),
    "Newton": ("#117733", "-"),
}

_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ((0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))


def style(name):
    """Keyword arguments for `Axes.plot` that draw the optimizer `name` as in every other figure."""
    if name not in STYLES:
        # The position in the registry and not, say, in the figure: it is the same whatever else the figure shows.
        others = [other for other in schuss.OPTIMIZERS if other not in STYLES]
        choices = [(colour, dash) for dash, colour in product(_DASHES, _COLOURS)]
        position = others.index(name) if name in others else len(others)
        return dict(zip(("color", "linestyle"), choices[position % len(choices)], strict=True))
    colour, dash = STYLES[name]
    return {"color": colour, "linestyle": dash}
