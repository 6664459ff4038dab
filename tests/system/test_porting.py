"""The porting pages' tables: each of their calls works, and no optimizer or schedule of the package is missing."""

import re
import sys

import numpy as np
import pytest
from helpers import ROOT

import schuss
from schuss import schedules

sys.path.insert(0, str(ROOT / "docs" / "_ext"))

import peers
from porting import ABSENT, cells, found, is_name, table

ROWS = {(name, row[0]): row for name, (rows, _) in peers.TABLES.items() for row in rows}
OPTIMIZERS = [row for row in ROWS.values() if len(row) == 4 and row[1] in schuss.OPTIMIZERS]
SCHEDULES = [row for (name, _), row in ROWS.items() if name.endswith("schedules")]
NAMES = {"lr": 0.1, "max_lr": 0.1, "base_lr": 0.01, "eta_min": 0.01, "end": 0.01, "swa_lr": 0.05, "alpha": 0.1}
NAMES |= {"N": 100, "T_0": 10, "T_mult": 2, "W": 5, "rate": 0.5, "factor": 0.5, "power": 2.0}
NAMES |= {"f": lambda step: 0.9, "a": schedules.constant(0.1), "b": schedules.cosine(0.1, 0.0, 10)}


@pytest.mark.parametrize("row", OPTIMIZERS, ids=lambda row: row[0])
def test_the_arguments_are_those_of_the_class(row):
    options = eval(f"dict({row[2]})")
    needed = {} if row[1] != "LARS" else {"lr": 0.1}
    opt = schuss.OPTIMIZERS[row[1]](np.ones((2, 2)), **(needed | options))
    values = {**opt.param_groups[0], "max_grad_norm": opt.max_grad_norm}
    assert {name: values[name] for name in options} == options


@pytest.mark.parametrize("row", SCHEDULES, ids=lambda row: row[0])
def test_the_schedules_are_functions_of_the_step(row):
    scope = {**NAMES, "schedules": schedules}
    if row[0].startswith("LinearLR"):
        scope |= {"a": 0.1, "b": 1.0}
    schedule = eval(row[1], scope)
    schuss.SGD(np.ones(2), lr=schedule, momentum=0.9).step(np.ones(2))
    assert 0 <= schedule(7) < 1


def test_every_optimizer_and_schedule_is_named():
    """A new class gets a row in docs/_ext/peers.py, or an entry in ONLY_HERE."""
    named = {row[1] for row in ROWS.values()} | peers.ONLY_HERE.keys()
    assert schuss.OPTIMIZERS.keys() - named == set()
    assert not [name for name in peers.ONLY_HERE if any(row[1] == name for row in ROWS.values())]
    used = set(re.findall(r"schedules\.(\w+)", " ".join(row[1] for row in SCHEDULES)))
    assert set(schedules.__all__) - used == {"Schedule"}


def test_what_is_missing_is_said():
    missing = [row for row in ROWS.values() if row[1] is None or (is_name(row[1]) and found(row[1]) is None)]
    assert missing and all(cells(row)[1] == ABSENT and cells(row)[2] for row in missing)
    assert all(row[-1] for row in ROWS.values() if row[1] is None), "the reason"
    assert cells(("X", None, "", "see `Adam` and `NoSuchThing`"))[2] == "see `Adam` and ``NoSuchThing``"
    assert "not available" in table("optax") and "`AdamW` with ``weight_decay=1e-4``" in table("optax")
