"""Compares two commits, benchmark by benchmark; fails if the second is slower.

Both are installed separately and run at the same time, each in its own process. They alternate in taking samples of a
few milliseconds, so a change of the machine's speed affects both. Benchmarks that differ are measured again in new
processes, because memory placement matters too; those count that differ by the factor five times out of seven.
"""

import argparse
import json
import math
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
MEASURED = 7  # times, each in new processes, if the first measurement differs
ENOUGH = 5  # of these must differ


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


class Failed(Exception):
    """A benchmark raises an error on one side."""


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
        answer = self.answer()
        if isinstance(answer, str):
            raise Failed(answer)
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def ratio(sides, name, rounds):
    """The second side's time divided by the first's, and the first's time.

    The ratio is the median over the rounds, or that of the fastest samples, whichever is nearer to 1. Other processes
    that run in some rounds move the median, and a machine that is faster for a moment moves the fastest samples; a
    change of the code moves both.
    """
    for side in sides:
        side.ask(name)
    taken = [], []
    for turn in range(rounds):
        for i in (0, 1) if turn % 2 else (1, 0):
            time.sleep(REST)
            taken[i].append(sides[i].ask(None))
    ratios = statistics.median(head / base for base, head in zip(*taken)), min(taken[1]) / min(taken[0])
    return min(ratios, key=lambda one: abs(math.log(one))), min(taken[0])


def measure(sites, names, rounds):
    """Each name with what ``ratio`` returns, in new processes; prints which benchmarks fail."""
    with Side(sites[0]) as base, Side(sites[1]) as head:
        for name in names:
            try:
                yield name, ratio((base, head), name, rounds)
            except Failed as reason:
                print(f"not compared: {name}: {reason}", flush=True)


def verdict(ratios, factor):
    """The word "slower" or "faster" if enough of the measurements agree, else None."""
    if sum(one >= factor for one in ratios) >= ENOUGH:
        return "slower"
    return "faster" if sum(one <= 1 / factor for one in ratios) >= ENOUGH else None


def is_open(ratios, factor):
    """Whether more measurements may still decide."""
    most = max(sum(one >= factor for one in ratios), sum(one <= 1 / factor for one in ratios))
    return verdict(ratios, factor) is None and most + MEASURED - len(ratios) >= ENOUGH


def compare(sites, pattern, factor, rounds):
    """Prints the benchmarks that differ, and returns the names of the slower ones; None if none was compared."""
    with Side(sites[0]) as base, Side(sites[1]) as head:
        found = [[name for name in side.names if re.search(pattern, name)] for side in (base, head)]
    for own, other, words in ((found[0], found[1], "base"), (found[1], found[0], "head")):
        for name in own:
            if name not in other:
                print(f"only in {words}: {name}")
    chosen = [name for name in found[1] if name in found[0]]
    print(f"{len(chosen)} benchmarks, {rounds} samples of each, alternating", flush=True)
    first = dict(measure(sites, chosen, rounds))
    if not first:
        return None
    # A real difference may look smaller in the first measurement.
    seen = {name: [one] for name, (one, _) in first.items() if abs(math.log(one)) >= math.log(factor) / 2}
    for _ in range(MEASURED - 1):
        undecided = [name for name, ratios in seen.items() if is_open(ratios, factor)]
        if undecided:
            for name, (one, _) in measure(sites, undecided, rounds):
                seen[name].append(one)
    decided = {name: verdict(ratios, factor) for name, ratios in seen.items()}
    for name in sorted(filter(decided.get, decided), key=lambda name: statistics.median(seen[name])):
        text = " ".join(f"{one:.2f}" for one in seen[name])
        print(f"{decided[name]} {name}: {first[name][1] * 1e6:.4g} us, times {text}")
    return [name for name in decided if decided[name] == "slower"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="the commit to compare with")
    parser.add_argument("head", nargs="?", default="HEAD")
    parser.add_argument("--bench", default=".", help="a regular expression over benchmarks and their parameters")
    parser.add_argument("--factor", type=float, default=1.05, help="how much slower is too slow; noise is below it")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    sites = [installed(given.base), installed(given.head)]
    slower = compare(sites, given.bench, given.factor, given.rounds)
    if slower is None:
        print(f"nothing was compared; --bench was {given.bench}")
        return 2
    print(f"{len(slower)} slower by {given.factor:g} or more, {ENOUGH} times out of {MEASURED}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
