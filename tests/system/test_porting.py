"""The porting pages' tables: each of their calls works, and no optimizer or schedule of the package is missing."""

import re
from functools import reduce

import numpy as np
import pytest
from porting_tables import TABLES

import schuss
from schuss import schedules

ROWS = [row for rows in TABLES.values() for row in rows]
OPTIMIZERS = [row for row in ROWS if row.name in schuss.OPTIMIZERS]
SCHEDULES = [row for table, rows in TABLES.items() if table.endswith("schedules") for row in rows]
NAMES = {"lr": 0.1, "max_lr": 0.1, "base_lr": 0.01, "eta_min": 0.01, "end": 0.01, "swa_lr": 0.05, "alpha": 0.1}
NAMES |= {"N": 100, "T_0": 10, "T_mult": 2, "W": 5, "rate": 0.5, "factor": 0.5, "power": 2.0}
NAMES |= {"f": lambda step: 0.9, "a": schedules.constant(0.1), "b": schedules.cosine(0.1, 0.0, 10)}
#: Of the registry, those that none of these four packages has.
ONLY_HERE = {"NAG", "Newton", "AdamAtan2", "SophiaG"}


@pytest.mark.parametrize("row", OPTIMIZERS, ids=lambda row: row.peer)
def test_the_arguments_are_those_of_the_class(row):
    options = eval(f"dict({row.options})")
    needed = {} if row.name != "LARS" else {"lr": 0.1}
    opt = schuss.OPTIMIZERS[row.name](np.ones((2, 2)), **(needed | options))
    values = {**opt.param_groups[0], "max_grad_norm": opt.max_grad_norm}
    assert {name: values[name] for name in options} == options


@pytest.mark.parametrize("row", SCHEDULES, ids=lambda row: row.peer)
def test_the_schedules_are_functions_of_the_step(row):
    scope = {**NAMES, "schedules": schedules}
    if row.peer.startswith("LinearLR"):
        scope |= {"a": 0.1, "b": 1.0}
    schedule = eval(row.ours.strip("`"), scope)
    schuss.SGD(np.ones(2), lr=schedule, momentum=0.9).step(np.ones(2))
    assert 0 <= schedule(7) < 1


def test_every_optimizer_and_schedule_is_named():
    """A new class gets a row in docs/guide/tables, or an entry in ONLY_HERE."""
    named = {row.name for row in ROWS}
    assert schuss.OPTIMIZERS.keys() - named == ONLY_HERE
    used = set(re.findall(r"schedules\.(\w+)", " ".join(row.ours for row in SCHEDULES)))
    assert set(schedules.__all__) - used == {"Schedule"}


def test_every_name_exists_and_what_is_missing_has_a_reason():
    for row in ROWS:
        if row.name:
            assert reduce(getattr, row.name.split("."), schuss)
    missing = [row for row in ROWS if row.ours == "not available"]
    assert missing and all(row.remark for row in missing)
