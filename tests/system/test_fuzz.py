"""Twenty thousand random calls of a hostile user; `make fuzz SECONDS=...` makes more."""

import subprocess
import sys

from helpers import ROOT

API = ROOT / "tests" / "fuzz" / "api.py"


def test_random_calls_do_all_or_nothing():
    done = subprocess.run([sys.executable, API, "--calls", "20000"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" calls, ") == 10
