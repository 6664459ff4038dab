"""Saves that are killed, or that fill the disk: the old checkpoint or the new one is there, whole."""

import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork, kill and namespaces")

KILLED = ROOT / "tests" / "support" / "killed_saves.py"


@pytest.mark.parametrize(
    ("elements", "clock"),
    [
        (1000, "instructions"),
        (1000, "time"),
        pytest.param(17_000_000, "time", marks=pytest.mark.slow),  # 204 MB
    ],
)
def test_saves_that_are_killed(elements, clock, tmp_path):
    """At 200 moments spread over the save."""
    command = [sys.executable, KILLED, tmp_path, str(elements), "200", clock]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    old, new, through = map(int, re.search(r"(\d+) killed .* (\d+) killed .* (\d+) not", done.stdout).groups())
    assert old + new + through == 200 and old
    assert clock == "time" or (new and not through)


FULL = """
import os, sys
import numpy as np, schuss

folder = sys.argv[1]
path, filler = os.path.join(folder, "state"), os.path.join(folder, "filler")
opt = schuss.Adam(np.ones(10_000))
schuss.save(path, opt)
content = open(path, "rb").read()
opt.step(np.ones(10_000))
image = lambda: (opt.param_groups[0]["params"][0].tobytes(), repr(opt.state_dict()))
before, failed = image(), 0
for room in range(0, len(content), 16 << 10):
    disk = os.statvfs(folder)
    with open(filler, "wb") as file:
        file.write(bytes(disk.f_bavail * disk.f_frsize - room - 8192))
    try:
        schuss.save(path, opt)
    except OSError as error:
        assert str(error).startswith(f"{path} cannot be written: ") and "No space left" in str(error), error
        failed += 1
    assert open(path, "rb").read() == content and sorted(os.listdir(folder)) == ["filler", "state"]
    assert image() == before
    os.unlink(filler)
schuss.save(path, opt)
again = schuss.Adam(np.ones(10_000))
schuss.load(path, again)
assert again.step_count == 1
print(failed)
"""


def test_a_disk_that_is_full(tmp_path):
    """Of one megabyte, with more and more room: the save fails at each place of the file."""
    in_a_namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size=1m none '{tmp_path}'"
    if not shutil.which("unshare") or subprocess.run([*in_a_namespace, "sh", "-c", mount]).returncode:
        pytest.skip("needs to mount a disk")
    command = [*in_a_namespace, "sh", "-c", mount + ' && exec "$@"', "sh", sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 15
