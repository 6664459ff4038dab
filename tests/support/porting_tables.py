"""Reads the tables of the porting pages, `docs/guide/tables/*.csv`."""

import csv
import re
from typing import NamedTuple

from helpers import ROOT


class Row(NamedTuple):
    """What another package has, and what takes its place here."""

    peer: str
    ours: str  # as the page shows it
    remark: str
    name: str | None  # of ours, if the cell is a name, perhaps with options
    options: str


def _row(peer: str, ours: str, remark: str) -> Row:
    found = re.fullmatch(r"`([\w.]+)`(?: with ``(.*)``)?", ours)
    return Row(peer.replace("``", ""), ours, remark, *(found.groups("") if found else (None, "")))


def _rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [_row(*cells) for cells in list(csv.reader(file))[1:]]


#: The rows of each table, by the table's name.
TABLES = {path.stem: _rows(path) for path in sorted((ROOT / "docs" / "guide" / "tables").glob("*.csv"))}
