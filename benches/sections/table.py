"""A table of figures, for the terminal, the documentation and the README."""

import re
from dataclasses import dataclass, field


class Cell(str):
    """A cell. ``lost`` marks a missed target, or a case in which another library is faster, ``rival``."""

    lost, rival = False, None


def cell(text, lost=False):
    made = Cell(text)
    made.lost = lost
    return made


def short(value):
    """A number with two or three significant digits."""
    if value != value:
        return "–"
    return f"{value:.2f}" if value < 9.95 else f"{value:.1f}" if value < 99.5 else f"{value:,.0f}"


def time(seconds):
    """Seconds in a suitable unit."""
    for unit, scale in (("ns", 1e9), ("µs", 1e6), ("ms", 1e3)):
        if seconds * scale < 999.5:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def bounded(value, least=None, most=None):
    """A figure with its target."""
    return cell(short(value), lost=(least is not None and value < least) or (most is not None and value > most))


def speedup(value, library, least=1):
    """Another library's time divided by ours, and the target; below 1, that library is faster."""
    made = bounded(value, least=max(least, 1))
    made.rival = library if value < 1 else None
    return made


@dataclass
class Table:
    """Rows with a header and an introduction. The first column names the row."""

    title: str
    text: str
    head: list
    rows: list = field(default_factory=list)

    def _marked(self, by):
        return [[f"{by}{one}{by}" if getattr(one, "lost", False) else str(one) for one in row] for row in self.rows]

    def markdown(self):
        """A Markdown table, for the terminal too; lost cells are bold."""
        rows = [self.head, *self._marked("**")]
        widths = [max(map(len, column)) for column in zip(*rows)]
        rule = ["-" * (w - 1) + ":" if i else "-" * w for i, w in enumerate(widths)]
        lines = [rows[0], rule, *rows[1:]]
        return "\n".join(
            "| " + " | ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))) + " |"
            for line in lines
        )

    def rst(self):
        """A section of reStructuredText."""
        lines = [self.title, "-" * len(self.title), "", self.text, "", ".. list-table::", "   :header-rows: 1"]
        lines += ["   :class: figures", ""]
        for row in [self.head, *self._marked("**")]:
            lines += [f"   {'  -' if i else '* -'} {one}" for i, one in enumerate(row)]
        # In reStructuredText, a name that ends with an underscore is a link.
        return re.sub(r"(?<=\w)_(?!\w)", r"\_", "\n".join([*lines, ""]))
