"""Every recorded row of the conformance table still gives the recorded results, bit for bit.

data/README.md says what is recorded, and how. It was recorded at the baseline level with one thread; here the CPU's
best level and all threads run. A new row needs no record.
"""

from itertools import groupby

import pytest
from bits import fingerprint
from cases import CASES
from helpers import DATA, DTYPES

_, *LINES = (DATA / "bits.txt").read_text().splitlines()
RECORD = {
    name: [line.split(" ", 3)[:3] for line in lines]
    for name, lines in groupby(LINES, key=lambda line: line.split(" ", 3)[3])
}
BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("name", RECORD)
def test_recorded_bits(name):
    got = [(fingerprint(BY_NAME[name], DTYPES[p], DTYPES[g]), p, g) for _, p, g in RECORD[name]]
    assert got == [tuple(line) for line in RECORD[name]]
