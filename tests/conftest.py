"""For all tests: which folders pytest leaves out, and the number of threads after each test.

tests/data has scripts for other packages, tests/mutants programs; pytest would import them to look for doctests.
"""

import pytest

import schuss

collect_ignore = ["data", "mutants", "support"]


@pytest.fixture(autouse=True)
def threads():
    """Restores the number of threads, which tests may change."""
    before = schuss.get_num_threads()
    yield
    schuss.set_num_threads(before)
