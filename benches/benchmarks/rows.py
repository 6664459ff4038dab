"""Steps over a thousand rows of a table of a million, against a table of a thousand rows and against torch."""

import itertools

import numpy as np

import schuss

from . import libraries
from .jobs import THREADS
from .timing import HOT, SUITE, measure_ratio

version = SUITE
ROWS, TABLE = 1_000, 1_000_000
CASES = {
    "SGD": (schuss.SGD, {}),
    "Adagrad": (schuss.Adagrad, {}),
    "Adagrad, row-wise": (schuss.Adagrad, {"row_wise": True}),
    "Adam": (schuss.Adam, {"eps_form": "keras"}),
    "Adam, catching up": (schuss.Adam, {"catch_up": True}),
}


def made(case, rows, width):
    kind, options = CASES[case]
    table = np.zeros((rows, width), np.float32)
    table += 1.0  # every page exists
    opt = kind(table, **options)
    for state in opt.state_dict()["state"][0].values():
        state += 0.0
    return opt


def of_rows(case, rows, width, draws=1):
    """A step over rows, the same each time or others, and the values."""
    opt, rng = made(case, rows, width), np.random.default_rng(0)
    values = rng.standard_normal((ROWS, width), dtype=np.float32)
    indices = itertools.cycle([rng.choice(rows, ROWS, replace=False) for _ in range(draws)])
    return lambda: opt.step_rows((next(indices), values))


class Rows:
    """Our time divided by a reference's: for other rows in each step, which are in no cache, or for the same."""

    params = [list(CASES), [16, 64, 256]]
    param_names = ["optimizer", "elements of a row"]
    timeout = 300

    def track_ratio_to_small_table(self, case, width):
        """The same rows in each step, as they are in the small table."""
        return measure_ratio(of_rows(case, TABLE, width), of_rows(case, ROWS, width), **HOT)

    def track_ratio_to_dense_step(self, case, width):
        """A step over all of the small table."""
        dense, values = made(case, ROWS, width), np.ones((ROWS, width), np.float32)
        return measure_ratio(of_rows(case, TABLE, width), lambda: dense.step(values), **HOT)

    def track_ratio_of_other_rows(self, case, width):
        """Other rows in each step, to the same rows."""
        return measure_ratio(of_rows(case, TABLE, width, draws=50), of_rows(case, TABLE, width), **HOT)

    def track_ratio_to_torch(self, case, width):
        """To torch's SparseAdam."""
        if case != "Adam" or "torch fused" not in libraries.LIBRARIES:
            return float("nan")
        import torch

        torch.set_num_threads(THREADS)
        rng = np.random.default_rng(0)
        table = torch.ones(TABLE, width, requires_grad=True)
        indices = torch.tensor(rng.choice(TABLE, (1, ROWS), replace=False))
        values = torch.tensor(rng.standard_normal((ROWS, width), dtype=np.float32))
        table.grad = torch.sparse_coo_tensor(indices, values, (TABLE, width))
        rival = torch.optim.SparseAdam([table])
        return measure_ratio(of_rows(case, TABLE, width), rival.step, rounds=7)


Rows.track_ratio_to_small_table.unit = "times the small table"
Rows.track_ratio_to_dense_step.unit = "times the dense step"
Rows.track_ratio_of_other_rows.unit = "times the same rows"
Rows.track_ratio_to_torch.unit = "times torch's SparseAdam"
