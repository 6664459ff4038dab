"""The speed table: AdamW from Python on the installed package, beside torch, numba, NumPy and the traffic floor.

    python benches/speed.py [--only small,cache,large,many,memory] [--rounds N] [--json FILE]

Everything that is compared runs interleaved in this one process (memory: in fresh ones). Times are medians over the
rounds; ratios are medians of the ratios within one round, because a neighbour on the machine slows both sides of a
round. Only the ratios mean something elsewhere.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

try:
    from benchmarks import common, floor, memory, rivals

    import schuss
except ModuleNotFoundError as missing:
    if missing.name != "schuss":
        raise
    sys.exit(f"schuss is not installed in {sys.executable}: install the package first")

THREADS = common.THREADS
FULL = {"small": 15, "cache": 9, "large": 15, "many": 11, "memory": 1}  # rounds


def contestants(shapes, names):
    """{"schuss": step, rival: step, ...} of those installed, all of which agree on the numbers."""
    job = common.Job("AdamW", shapes, **common.ADAMW)
    steps = {"schuss": job.step}
    for name in names:
        if name not in rivals.RIVALS:
            continue
        steps[name], params = rivals.RIVALS[name](shapes, threads=THREADS)
        for ours, theirs in zip(common.leaves(job.params), params):
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6, err_msg=f"{name} computes something else")
    return job, steps


def summary(taken, base="schuss"):
    """{name: {"us": median microseconds, "ratio": its time over that of base}}."""
    return {
        name: {
            "us": statistics.median(each) * 1e6,
            "best_us": min(each) * 1e6,
            "ratio": common.ratio(taken, name, base),
        }
        for name, each in taken.items()
    }


def table(head, rows):
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = [head, ["-" * (w - 1) + ":" if i else "-" * w for i, w in enumerate(widths)], *rows]
    for line in lines:
        cells = [cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))]
        print("| " + " | ".join(cells) + " |")
    print()


def us(value):
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def compare(title, key, shapes_of, names, rounds, first="elements", **options):
    """One table: a row a shape, our time, and how many times as long everybody else takes."""
    print(title + "\n")
    results, present = {}, ["schuss"]
    for label, shapes in shapes_of.items():
        _, steps = contestants(shapes, names)
        present = list(steps)
        results[label] = summary(common.interleave(steps, rounds, **options))
    rows = [
        [label, us(r["schuss"]["us"]), *(f"{r[n]['ratio']:.2f} ({us(r[n]['us'])})" for n in present[1:])]
        for label, r in results.items()
    ]
    table([first, "schuss, us", *(f"{n}: times ours (us)" for n in present[1:])], rows)
    return {key: results}


def small(rounds):
    names = ["torch fused", "numba", "NumPy"]
    return compare("## One array of 1,024", "small", {"1,024": [1_024]}, names, rounds)


def cache(rounds):
    sizes = {f"{n:,}": [n] for n in (16_384, 131_072, 262_144, 1_048_576)}
    names = ["torch fused", "numba", "numba parallel", "numba parallel fastmath", "NumPy"]
    results = compare("## In cache, back to back", "cache", sizes, names, rounds)
    work = common.numpy_work(1.0)
    title = "## In cache, a millisecond of NumPy work before every step"
    results |= compare(title, "cache_pause", sizes, names[:-1], rounds, seconds=0.004, work=work)
    print("## In cache, our own threads against one\n")
    rows = []

    def with_threads(n, threads):
        step = common.Job("AdamW", [n], **common.ADAMW).step

        def run():
            schuss.set_num_threads(threads)
            step()

        return run

    results["threads"] = {}
    for label, shape in sizes.items():
        steps = {"one thread": with_threads(shape[0], 1), "all threads": with_threads(shape[0], THREADS)}
        hot = summary(common.interleave(steps, rounds), "all threads")["one thread"]
        cold = summary(common.interleave(steps, rounds, seconds=0.004, work=work), "all threads")["one thread"]
        results["threads"][label] = {"back to back": hot, "pause": cold}
        rows.append([label, us(hot["us"]), f"{hot['ratio']:.2f}", us(cold["us"]), f"{cold['ratio']:.2f}"])
    schuss.set_num_threads(THREADS)
    table(["elements", "one thread, us", "times all threads", "with pause, us", "times all threads"], rows)
    return results


def large(rounds):
    """Past the caches. The floor runs over the very arrays that the optimizer steps."""
    print("## Past the caches\n")
    results, rows, yardsticks = {}, [], ["floor", "torch fused", "numba parallel"]
    for n in common.PAST_CACHE:
        job, steps = contestants([n], ["torch fused", "numba parallel"])
        try:
            steps["floor"] = job.floor(THREADS)
        except floor.FloorUnavailable as reason:
            print(f"(no floor: {reason})\n")
        r = summary(common.interleave(steps, rounds, seconds=0.06, rest=0.002))
        results[f"{n:,}"] = r
        gigabytes = f"{job.bytes() / r['schuss']['us'] / 1e3:.1f}"
        others = [f"{r[name]['ratio']:.2f}" if name in r else "-" for name in yardsticks]
        rows.append([f"{n:,}", us(r["schuss"]["us"]), gigabytes, *others])
    table(["elements", "schuss, us", "GB/s", *(f"{name}: times ours" for name in yardsticks)], rows)
    return {"large": results}


def many(rounds):
    print("## Many arrays\n")
    results, rows = {}, []
    flat, _ = contestants([1_000_000], [])
    for label in list(common.LAYOUTS)[1:]:
        names = ["torch fused"] if label == "1000 x 1000" else []  # ten thousand take torch a tenth of a second
        _, steps = contestants(common.LAYOUTS[label], names)
        r = summary(common.interleave({**steps, "flat": flat.step}, rounds))
        results[label] = r
        torch = f"{r['torch fused']['ratio']:.1f}" if "torch fused" in r else "-"
        rows.append([label, us(r["schuss"]["us"]), f"{1 / r['flat']['ratio']:.2f}", torch])
    table(["arrays", "schuss, us", "ours over our flat step", "torch fused: times ours"], rows)
    return {"many": results}


def growth(rounds):
    print("## Memory that a step takes beyond parameters, gradients and state (8 M elements)\n")
    results = {case: memory.measure_growth(case) for case in memory.GROWTH}
    table(["case", "MiB at the peak"], [[case, f"{value / 2**20:.2f}"] for case, value in results.items()])
    return {"memory": results}


def targets(results):
    """What the project has promised, and what this run says. The figures are ratios; noise is the reader's business."""
    rows = []

    def row(what, value, target, met):
        rows.append([what, f"{value:.2f}", target, "yes" if met else "no"])

    def at_least(what, value, target):
        row(what, value, f">= {target}", value >= target)

    def at_most(what, value, target):
        row(what, value, f"<= {target}", value <= target)

    if r := results.get("small", {}).get("1,024"):
        if "torch fused" in r:
            at_least("1,024 elements: torch fused over ours", r["torch fused"]["ratio"], 25)
        if "numba" in r:
            at_least("1,024 elements: numba over ours", r["numba"]["ratio"], 1)
    if r := results.get("many", {}).get("1000 x 1000"):
        if "torch fused" in r:
            at_least("1000 x 1000: torch fused over ours", r["torch fused"]["ratio"], 18)
        at_most("1000 x 1000: ours over our flat step", 1 / r["flat"]["ratio"], 1.25)
    for label, r in results.get("large", {}).items():
        if "floor" in r:
            at_least(f"{label} elements: floor over ours", r["floor"]["ratio"], 0.93)
    for case in ("one array", "1000 arrays"):
        if "memory" in results:
            at_most(f"memory growth, {case}, MiB", results["memory"][case] / 2**20, 1)
    print("## Targets\n")
    table(["what", "this run", "target", "met"], rows)


def machine():
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")), cpu)
    versions = {}
    for name in ("schuss", "numpy", "torch", "numba"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": THREADS,
        "cpu_level": schuss.cpu_level(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions,
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
    }


def core_seconds():
    """(wall clock, seconds of work and theft on all cores, seconds of this process and its children), or None."""
    try:
        user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    except OSError:
        return None
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), busy, sum(os.times()[:4])


def neighbours(before, after):
    """The share of the machine's cores that others took between two ``core_seconds``; 0 where it cannot be known."""
    if before is None or after is None:
        return 0.0
    wall, busy, mine = (b - a for a, b in zip(before, after))
    return max(0.0, (busy - mine) / (wall * os.cpu_count()))


SECTIONS = {"small": small, "cache": cache, "large": large, "many": many, "memory": growth}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help=f"a comma-separated choice of {', '.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison, instead of a number chosen for each")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(SECTIONS)
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"--only knows {', '.join(SECTIONS)}, not {', '.join(sorted(unknown))}")
    about = machine()
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    print(f"{about['cpu']}, {about['cores']} cores, {THREADS} threads, level {about['cpu_level']}; {about['system']}")
    print(f"{versions}\n{about['command']}, {about['date']}")
    print("AdamW, float32, from Python. Ratios are medians over rounds of interleaved runs.\n")
    for name, reason in rivals.MISSING.items():
        print(f"left out: {name} ({reason})")
    results = {}
    for name in chosen:
        before = core_seconds()
        results |= SECTIONS[name](options.rounds or FULL[name])
        results.setdefault("neighbours", {})[name] = share = neighbours(before, core_seconds())
        if share > 0.05:
            print(f"(Others used {share:.0%} of the cores meanwhile. OpenMP, in torch and numba, collapses then.)\n")
    targets(results)
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
