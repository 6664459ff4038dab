"""Compares two commits, benchmark by benchmark; fails if the second is slower.

Both are installed separately and run at the same time, each in its own process. They alternate in taking samples of a
few milliseconds, so a change of the machine's speed affects both. Benchmarks that differ are measured again in new
processes, because memory placement matters too; only those that are slower each time count as slower.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILDS = HERE / ".asv" / "compare"
REST = 0.005  # seconds between samples, so that spinning threads of one side do not use cores in the other's sample
AGAIN = 4


def output(*command, **options):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=ROOT, **options).stdout.strip()


def installed(revision):
    """The folder in which a commit is installed, without its dependencies; builds it if necessary."""
    commit = output("git", "rev-parse", "--verify", f"{revision}^{{commit}}")
    folder = BUILDS / commit
    if not (folder / "done").exists():
        print(f"building {revision}, {commit[:10]}", flush=True)
        source, wheels = folder / "source", folder / "wheels"
        source.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "archive", commit], check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout
        # With the commit's own times, files could be older than another commit's build, which cargo would reuse.
        subprocess.run(["tar", "-x", "--touch", "-C", source], check=True, input=archive)
        pip = [sys.executable, "-m", "pip", "--quiet"]
        env = os.environ | {"CARGO_TARGET_DIR": str(ROOT / "target" / "asv")}
        output(*pip, "wheel", "--no-deps", "-w", wheels, source, env=env)
        output(*pip, "install", "--no-deps", "--upgrade", "--target", folder / "site", *wheels.glob("*.whl"))
        shutil.rmtree(source)
        shutil.rmtree(wheels)
        (folder / "done").touch()
    return folder / "site"


class Side:
    """A process that measures one of the two commits."""

    def __init__(self, site):
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(HERE)])}
        command = [sys.executable, HERE / "side.py"]
        self.process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.names = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a benchmark failed, exit status {self.process.wait()}")
        return json.loads(line)

    def ask(self, question):
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return self.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def ratio(sides, name, rounds):
    """The second side's time divided by the first's, and the first's time; medians over the rounds."""
    for side in sides:
        side.ask(name)
    ratios, base = [], []
    for turn in range(rounds):
        taken = [0.0, 0.0]
        for i in (0, 1) if turn % 2 else (1, 0):
            time.sleep(REST)
            taken[i] = sides[i].ask(None)
        ratios.append(taken[1] / taken[0])
        base.append(taken[0])
    return statistics.median(ratios), statistics.median(base)


def compare(sites, pattern, factor, rounds):
    """Prints the benchmarks that differ, and returns the names of the slower ones."""
    with Side(sites[0]) as base, Side(sites[1]) as head:
        chosen = [name for name in head.names if name in base.names and re.search(pattern, name)]
        print(f"{len(chosen)} benchmarks, {rounds} samples of each, alternating", flush=True)
        first = {name: ratio((base, head), name, rounds) for name in chosen}
    seen = {name: [one] for name, (one, _) in first.items() if not 1 / factor < one < factor}
    for _ in range(AGAIN):
        undecided = [name for name, ratios in seen.items() if min(ratios) >= factor or max(ratios) <= 1 / factor]
        if undecided:
            with Side(sites[0]) as base, Side(sites[1]) as head:
                for name in undecided:
                    seen[name].append(ratio((base, head), name, 2 * rounds)[0])
    for name, ratios in sorted(seen.items(), key=lambda item: statistics.median(item[1])):
        verdict = "slower" if min(ratios) >= factor else "faster" if max(ratios) <= 1 / factor else "scatter"
        text = " ".join(f"{one:.2f}" for one in ratios)
        print(f"{verdict:8} {name}: {first[name][1] * 1e6:.4g} us, times {text}")
    return [name for name, ratios in seen.items() if min(ratios) >= factor]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="the commit to compare with")
    parser.add_argument("head", nargs="?", default="HEAD")
    parser.add_argument("--bench", default=".", help="a regular expression over benchmarks and their parameters")
    parser.add_argument("--factor", type=float, default=1.1, help="how much slower is too slow")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    sites = [installed(given.base), installed(given.head)]
    slower = compare(sites, given.bench, given.factor, given.rounds)
    print(f"{len(slower)} slower by {given.factor:g} or more, each time")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
