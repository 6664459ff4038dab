"""Colours of the example figures: an optimizer has the same colour and dashes in every figure.

The palette is Okabe and Ito's, which can be distinguished with all common colour vision deficiencies. It has too few
colours, so some of Paul Tol's are added, and related optimizers share a colour and differ in dashes: Lookahead around
an optimizer has that optimizer's colour. Optimizers without an entry here also differ in dashes.
"""

from itertools import product

import schuss

INK = "#222222"  # text
FAINT = "#D9D9D9"  # grids and guides

# name of a line -> (colour, line style of matplotlib)
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
    """Keyword arguments for `Axes.plot` with the colour and dashes of an optimizer."""
    if name not in STYLES:
        # The position in the registry does not depend on what else a figure shows.
        others = [other for other in schuss.OPTIMIZERS if other not in STYLES]
        choices = [(colour, dash) for dash, colour in product(_DASHES, _COLOURS)]
        position = others.index(name) if name in others else len(others)
        return dict(zip(("color", "linestyle"), choices[position % len(choices)], strict=True))
    colour, dash = STYLES[name]
    return {"color": colour, "linestyle": dash}
