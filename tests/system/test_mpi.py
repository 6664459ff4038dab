"""`schuss.mpi` on real processes. Each test is a job of a few, which asserts by itself (support/mpi_*.py)."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT

PROGRAM = ROOT / "tests" / "support" / "mpi_program.py"
#: That of the package mpich, or else any.
MPIEXEC = shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or MPIEXEC is None, reason="needs mpi4py and an MPI"
)


def run(processes, *arguments, program=PROGRAM, preload=None, timeout=300):
    """Runs a case; processes that end with an exception end the job."""
    before = ["env", f"LD_PRELOAD={preload}"] if preload else []
    command = [MPIEXEC, "-n", str(processes), *before, sys.executable, "-m", "mpi4py", str(program)]
    command += map(str, arguments)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env={**os.environ, "SCHUSS_NUM_THREADS": "1"}
    )


#: The conformance table runs in this many jobs, two of which are in each test run.
PARTS = 12
CASES = {
    "bits": 4,
    "formats": 3,
    "files": 3,
    "errors": 3,
    "hostile": 3,
    "settings": 3,
    "accumulated": 3,
    "groups": 3,
    "many": 1,
    "interrupt": 2,
    "interrupted_zeroing": 1,
    "interrupted_files": 3,
    "model": 4,
    "overlap": 2,
    "save_memory": 2,
    "doctests": 1,
}


FILES = ("files", "errors", "hostile", "settings", "accumulated", "interrupted_files", "save_memory")


@pytest.mark.parametrize("case", CASES)
def test_a_job_passes(case, tmp_path):
    folder = [tmp_path] if case in FILES else []
    done = run(CASES[case], case, *folder)
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("case", ["gone", "collected"])
def test_the_garbage_collector_of_one_process_waits_for_no_other(case, processes, tmp_path):
    done = run(processes, case, *[tmp_path] * (case == "collected"), timeout=60)
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr


@pytest.mark.parametrize("part", [0, 1, *(pytest.param(part, marks=pytest.mark.slow) for part in range(2, PARTS))])
def test_rows_of_the_conformance_table_have_the_bits_of_one_process(part):
    done = run(3, "table", part, PARTS)
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr


def test_without_memory_for_a_step_in_one_process_all_raise_an_error(counting):
    done = run(2, "memory", preload=counting)
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr


@pytest.mark.parametrize("case", ["killed", "raising"])
def test_a_job_ends_with_its_first_process(case):
    start = time.monotonic()
    done = run(3, case)
    assert done.returncode != 0 and "passed" not in done.stdout
    assert time.monotonic() - start < 60


def test_the_example_runs():
    done = run(3, program=ROOT / "examples" / "loops" / "with_mpi.py")
    assert done.returncode == 0 and "the same bits as one process" in done.stdout, done.stderr


def test_without_mpi4py_the_error_says_what_to_install():
    code = "import sys; sys.modules['mpi4py'] = None; import schuss.mpi; schuss.mpi.Sharded(schuss.SGD, [], lr=1.0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: schuss.mpi needs the package mpi4py, and an MPI such as the package mpich" in done.stderr
