"""Kills processes in the middle of a save: ``python killed_saves.py FOLDER ELEMENTS MOMENTS CLOCK``.

After each kill the file must be the old or the new checkpoint, whole, and the next save must remove what was left.
CLOCK says how moments are spread over a save: "instructions" of Python, or "time".
"""

import functools
import hashlib
import os
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

import schuss


def made(elements, steps):
    opt = schuss.Adam(np.linspace(-1, 1, elements, dtype=np.float32), lr=0.1)
    for _ in range(steps):
        opt.step(np.linspace(2, -1, elements, dtype=np.float32))
    return opt


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else _digest(file)


def _digest(file):
    total = hashlib.sha256()
    for part in iter(lambda: file.read(1 << 20), b""):
        total.update(part)
    return total.hexdigest()


def traced(call, at):
    """Makes a call whose process ends before instruction `at` of Python; returns how many there were."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return count


def killed(call, after, clock):
    """Makes a call in a process that is killed after so many seconds or instructions; returns whether it was."""
    ready, started = os.pipe()
    child = os.fork()
    if not child:
        os.write(started, b"x")
        if clock == "time":
            call()
        else:
            traced(call, after)
        os._exit(0)
    os.read(ready, 1)
    if clock == "time":
        end = time.perf_counter() + after
        while time.perf_counter() < end:
            time.sleep(max(0.0, end - time.perf_counter() - 1e-3))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(ready)
    os.close(started)
    assert status in (0, signal.SIGKILL), f"a save that was not killed ended with status {status}"
    return status != 0


def leave(folder):
    """Makes the folder's content what a save finds that comes after a killed one."""
    for name in set(os.listdir(folder)) - {"state", "kept"}:
        (folder / name).unlink()
    (folder / ".state.0123456789abcdef.schuss.tmp").write_bytes(b"half")


def main(folder, elements, moments, clock):
    folder = Path(folder)
    path, kept = folder / "state", folder / "kept"
    old, new = made(elements, 1), made(elements, 2)
    save_new = functools.partial(schuss.save, path, new)
    digests = {}
    schuss.save(path, old)
    digests[digest(path)] = "old"
    shutil.copy(path, kept)
    save_new()
    digests[digest(path)] = "new"
    assert len(digests) == 2
    if clock == "time":
        times = []
        for _ in range(3):
            start = time.perf_counter()
            save_new()
            times.append(time.perf_counter() - start)
        whole = 1.2 * sorted(times)[1]
    else:
        leave(folder)
        whole = traced(save_new, 0)
    found = Counter()
    for i in range(moments):
        shutil.copy(kept, path)
        leave(folder)
        after = whole * (i + 0.5) / moments
        was_killed = killed(save_new, after if clock == "time" else round(after), clock)
        have = digests.get(digest(path))
        assert have, f"killed at {after}, it left a file that is neither the old one nor the new one"
        assert was_killed or have == "new"
        left = sorted(set(os.listdir(folder)) - {"state", "kept"})
        assert len(left) <= 1 and all(name.startswith(".state.") for name in left), left
        found[(was_killed, have)] += 1
        found["left a temporary file"] += len(left)
    opt = made(elements, 0)
    leave(folder)
    schuss.load(path, opt)
    assert opt.step_count in (1, 2)
    schuss.save(path, opt)
    assert sorted(os.listdir(folder)) == ["kept", "state"], "the last save removed what was left"
    print(
        f"{path.stat().st_size:,} bytes, {moments} moments in {clock}: {found[True, 'old']} killed with the old file, "
        f"{found[True, 'new']} killed with the new one, {found[False, 'new']} not killed; "
        f"{found['left a temporary file']} left a temporary file"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
