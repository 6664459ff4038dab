"""NumPy's BLAS on threads of the package: the same bits, several callers, forks, undoing.

Each test runs a process with a time limit.
"""

import os
import subprocess
import sys

import pytest

import schuss
from schuss import _blas

LIMIT = 60  # seconds; every test takes a few

PRELUDE = """
import ctypes, os, sys, threading, warnings
import numpy as np, schuss
from pathlib import Path

warnings.simplefilter("ignore", DeprecationWarning)  # forking a process with threads is deprecated
rng = np.random.default_rng(0)


def made(dtype):
    shapes = [(200, 200, 200), (300, 300, 1), (70, 300, 150), (313, 129, 157), (700, 64, 64)]
    pairs = [[rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n))] for m, k, n in shapes]
    a = rng.standard_normal((150, 150)).astype(dtype)
    positive = (a @ a.T + 400 * np.eye(150)).astype(dtype)
    jobs = [lambda pair=pair: pair[0] @ pair[1] for pair in pairs]
    return [*jobs, lambda: a @ a.T, lambda: np.linalg.cholesky(positive), lambda: np.linalg.qr(a)[1],
            lambda: np.linalg.inv(positive), lambda: np.linalg.solve(positive, a), lambda: np.linalg.eigvalsh(positive)]


JOBS = [job for dtype in (np.float32, np.float64, np.complex64) for job in made(dtype)]
results = lambda: [job().tobytes() for job in JOBS]
product = JOBS[0]


def busy():
    \"\"\"Nanoseconds that the package's threads for BLAS have run.\"\"\"
    tasks = [task for task in Path("/proc/self/task").iterdir() if "schuss-blas" in (task / "comm").read_text()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)

"""


@pytest.fixture
def run(tmp_path):
    """Runs a script on three threads of BLAS, and returns what it prints."""
    if not can_share():
        pytest.skip("NumPy's BLAS cannot share its threads here")

    def run(body):
        script = tmp_path / "script.py"
        script.write_text(PRELUDE + body, encoding="utf-8")
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "3"}
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=LIMIT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def can_share():
    try:
        _blas._openblas()
    except RuntimeError:
        return False
    return True


def test_results_have_the_same_bits(run):
    script = """
schuss.share_threads_with_blas(False)
want = results()
for share in (True, True, False, False, True):
    schuss.share_threads_with_blas(share)
    assert results() == want, share
print("same")
"""
    assert run(script) == "same\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_package_s_threads_do_the_work_until_it_is_undone(run):
    script = """
def worked():
    before = busy()
    for _ in range(200):
        product()
    return busy() - before

schuss.share_threads_with_blas()
shared = worked()
schuss.share_threads_with_blas(False)
alone = worked()
schuss.share_threads_with_blas()
print(shared > 1e6, alone < 1e6, worked() > 1e6)
"""
    assert run(script) == "True True True\n"


def test_several_callers_and_undoing_while_they_compute(run):
    script = """
schuss.share_threads_with_blas()
want = results()
opt, grad = schuss.AdamW(np.ones(300_000, np.float32)), np.ones(300_000, np.float32)
wrong = []

def compute():
    for _ in range(2):
        wrong.extend(i for i, bits in enumerate(results()) if bits != want[i])

threads = [threading.Thread(target=compute) for _ in range(4)]
for thread in threads:
    thread.start()
turn = 0
while any(thread.is_alive() for thread in threads):
    turn += 1
    schuss.share_threads_with_blas(turn % 3 > 0)
    opt.step(grad)
print(wrong)
"""
    assert run(script) == "[]\n"


def test_the_number_of_threads_may_change(run):
    script = """
library = ctypes.CDLL(np.linalg._umath_linalg.__file__)
names = ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads")
change = next(getattr(library, name) for name in names if hasattr(library, name))
for count in (1, 2, 3, 8, 2, 40, 3):  # 40 is more than half of the maximum: too many to share
    change(count)
    schuss.share_threads_with_blas(False)
    want = product().tobytes()
    schuss.share_threads_with_blas()
    assert product().tobytes() == want, count
print("same")
"""
    assert run(script) == "same\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_scipy_keeps_its_own_threads(run):
    pytest.importorskip("scipy")
    script = """
from scipy.linalg.blas import sgemm
schuss.share_threads_with_blas()
product()
before, a = busy(), np.ones((300, 300), np.float32, order="F")
for _ in range(100):
    sgemm(1.0, a, a)
print(busy() - before < 1e6)
"""
    assert run(script) == "True\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forks(run):
    """A child and its parent go on; a parent does also if other threads compute meanwhile."""
    script = """
def forked(work):
    child = os.fork()
    if child == 0:
        os._exit(work())
    return os.waitpid(child, 0)[1]

schuss.share_threads_with_blas()
want = results()

def grandchild():
    good = results() == want
    schuss.share_threads_with_blas(False)
    return 2 * (results() != want) + 1 - good

def child():
    return forked(grandchild) or results() != want

codes = [forked(child) for _ in range(2)]
stop = threading.Event()

def compute():
    while not stop.is_set():
        product()

threads = [threading.Thread(target=compute) for _ in range(3)]
for thread in threads:
    thread.start()
codes += [forked(lambda: 0) for _ in range(20)]
stop.set()
for thread in threads:
    thread.join()
print(set(codes), results() == want)
"""
    assert run(script) == "{0} True\n"


def test_another_blas_is_refused(monkeypatch):
    """A library without the callback, here the extension module itself, which is not linked with any BLAS."""
    monkeypatch.setattr(_blas, "_umath_linalg", schuss._schuss)
    built = {"Build Dependencies": {"blas": {"name": "mkl-sdl", "version": "2025.1"}}}
    monkeypatch.setattr(_blas.np, "show_config", lambda mode: built)
    with pytest.raises(RuntimeError) as caught:
        schuss.share_threads_with_blas()
    assert str(caught.value) == (
        "the threads of NumPy's BLAS, mkl-sdl 2025.1, cannot be shared: that needs the OpenBLAS of NumPy's wheels "
        "for Linux or macOS, since NumPy 2.2; pip install -U numpy installs it. Or let BLAS's threads sleep soon "
        "after a product: set OPENBLAS_THREAD_TIMEOUT=4 (OpenBLAS), KMP_BLOCKTIME=0 (MKL) or OMP_WAIT_POLICY=passive"
        " (OpenMP) before Python starts"
    )
    schuss.share_threads_with_blas(False)
