"""Measures the speed page's figures, records them in results.json, and rewrites the README's figures.

    python benches/speed.py [--only SECTION[.PIECE] ...] [--rounds N] [--json FILE]

Every piece runs in its own process, where the compared functions alternate. Times are medians over the rounds. Ratios
are medians of the ratios of one round, because other load on the machine slows both sides of a round. Only ratios carry
over to other machines.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import page
from sections import SECTIONS

HERE = Path(__file__).resolve().parent
ROUNDS = 11
PACKAGES = ("schuss", "numpy", "torch", "numba", "deepspeed", "jax", "optax", "scipy", "prodigyopt", "schedulefree")
# What machine() tells since the record was made, and older records lack.
LATER = {"model", "l3", "rustc", "prodigyopt", "schedulefree"}


def machine():
    """Machine and versions of the measurement."""
    import schuss

    info, l3 = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
    lines = info.read_text().split("\n\n")[0].splitlines() if info.exists() else []
    cpu = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    more = {"model": "-".join(cpu[name] for name in ("cpu family", "model", "stepping") if name in cpu)}
    more["l3"] = l3.read_text().strip() if l3.exists() else ""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    try:
        versions["rustc"] = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.split()[1]
    except (OSError, IndexError):
        pass
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        **{name: value for name, value in more.items() if value},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": schuss.get_num_threads(),
        "cpu_level": schuss.cpu_level(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def same(recorded, now):
    """Whether two results of ``machine`` are the same, without what an older record lacks."""
    recorded, now = ({**own, **own.get("versions", {}), "versions": None} for own in (recorded, now))
    return recorded == {name: value for name, value in now.items() if name in recorded or name not in LATER}


def commit():
    """The measured commit, with a plus if files have changed since, except those that this script writes."""

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(HERE.parent), *arguments], capture_output=True, text=True
        ).stdout.strip()

    written = [f":!{path.relative_to(HERE.parent)}" for path in (page.RESULTS, page.README, page.PICTURE)]
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *written)
    return (git("rev-parse", "--short=9", "HEAD") or "unknown") + ("+" if changed else "")


def core_seconds():
    """(wall clock, busy and stolen seconds of all cores, seconds of this process and its children), or None."""
    try:
        user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    except OSError:
        return None
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), busy, sum(os.times()[:4])


def neighbours(before, after):
    """The share of the cores that other processes used between two ``core_seconds``; 0 if unknown."""
    if before is None or after is None:
        return 0.0
    wall, busy, mine = (b - a for a, b in zip(before, after))
    return max(0.0, (busy - mine) / (wall * os.cpu_count()))


def measured(section, piece, rounds, version):
    """The results of one piece, measured in a new process."""
    command = [sys.executable, __file__, "--piece", section, piece, "--rounds", str(rounds)]
    before = core_seconds()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    after = core_seconds()
    if done.returncode:
        sys.exit(f"{section}.{piece} failed")
    about = {"date": datetime.date.today().isoformat(), "commit": version, "rounds": rounds}
    if before and after:
        about |= {"seconds": round(after[0] - before[0], 1), "neighbours": round(neighbours(before, after), 3)}
    return json.loads(done.stdout.splitlines()[-1]), about


def chosen(only):
    """The requested (section, piece) pairs."""
    pairs = [(section, piece) for section, module in SECTIONS.items() for piece in module.PIECES]
    if only is None:
        return pairs
    known = {pair[0] for pair in pairs} | {".".join(pair) for pair in pairs}
    if unknown := set(only) - known:
        sys.exit(f"--only knows {'; '.join(sorted(known))}; not {'; '.join(sorted(unknown))}")
    return [pair for pair in pairs if pair[0] in only or ".".join(pair) in only]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", help=f"sections ({', '.join(SECTIONS)}) or pieces (floors.8388608)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds of each comparison, {ROUNDS} by default")
    parser.add_argument("--json", type=Path, help="record the figures there, and leave results.json and README alone")
    parser.add_argument("--piece", nargs=2, metavar=("SECTION", "PIECE"), help="measure one piece and print it as JSON")
    options = parser.parse_args()
    if options.piece:
        section, piece = options.piece
        return print("\n" + json.dumps(SECTIONS[section].measure(piece, options.rounds)))
    path = options.json or page.RESULTS
    about = machine()
    results = json.loads(path.read_text()) if path.exists() else {}
    if not same(results.get("machine", {}), about):  # figures of different machines or versions are not comparable
        if options.only and options.json is None:
            sys.exit(f"{path.name} is of another machine or other versions; measure all, or parts with --json FILE")
        results = {"machine": about, "figures": {}, "measured": {}}
    if not options.only:
        results["machine"] = about
    begin, version = time.perf_counter(), commit()
    for section, piece in chosen(options.only):
        print(f"{section}.{piece} ...", end=" ", flush=True)
        figures, how = measured(section, piece, options.rounds, version)
        results["figures"].setdefault(section, {})[piece] = figures
        results["measured"][f"{section}.{piece}"] = how
        share = how.get("neighbours", 0)
        busy = f", others used {share:.0%} of the cores: repeat it" if share > 0.05 else ""
        print(f"{how.get('seconds', 0):.0f} s{busy}", flush=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\n{page.text(results)}\nmeasured in {time.perf_counter() - begin:.0f} s")
    if options.json is None:
        page.rewrite_readme(results)


if __name__ == "__main__":
    main()
