"""The cost of building commits from nothing, and the size of their wheels.

    python benches/build_cost.py REVISION [REVISION ...] [--cargo arguments ...]

For each commit it runs ``cargo build --release -p schuss-python`` with an empty target folder, after fetching the
dependencies, and prints CPU-seconds, wall clock time and, if binutils are installed, the bytes of machine code. Then it
builds the wheel, which is not timed. CPU-seconds depend on the machine's load: compare figures of one run only.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARGO = ["cargo", "build", "--release", "--locked", "--offline", "--quiet", "-p", "schuss-python"]


def used():
    """CPU-seconds of all child processes that have ended."""
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime


def text_bytes(folder):
    """Bytes of machine code of the library in a folder; None without an ELF file or without binutils."""
    library = folder / "lib_schuss.so"
    if not library.exists() or shutil.which("size") is None:
        return None
    lines = subprocess.run(["size", "-A", library], check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(".text ")), None)


def measure(revision, arguments):
    """(CPU-seconds, seconds, bytes of machine code, bytes of the wheel)."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        source.mkdir()
        archive = subprocess.run(["git", "archive", revision], check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout
        subprocess.run(["tar", "-x", "-C", source], check=True, input=archive)

        def run(*command):
            subprocess.run(command, check=True, cwd=source, env=os.environ | {"CARGO_TARGET_DIR": str(target)})

        run("cargo", "fetch", "--locked", "--quiet")
        before, begin = used(), time.perf_counter()
        run(*CARGO, *arguments)
        cpu, wall = used() - before, time.perf_counter() - begin
        code = text_bytes(target / "release")
        run(sys.executable, "-m", "maturin", "build", "--release", "--locked", "--quiet", "--out", target, *arguments)
        return cpu, wall, code, next(target.glob("*.whl")).stat().st_size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="+")
    parser.add_argument("--cargo", nargs=argparse.REMAINDER, default=[], help="arguments of cargo build and maturin")
    given = parser.parse_args()
    for revision in given.revisions:
        cpu, wall, code, wheel = measure(revision, given.cargo)
        machine_code = "" if code is None else f", {code:,} bytes of machine code"
        print(f"{revision}: {cpu:.0f} CPU-seconds, {wall:.0f} seconds{machine_code}, wheel {wheel:,} bytes", flush=True)


if __name__ == "__main__":
    main()
