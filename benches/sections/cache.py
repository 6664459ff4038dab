"""Arrays in cache: all threads compared with one, and optimizers with their divisions and memory accesses alone."""

from .table import Table, bounded, short, time

PIECES = ["threads", "bound"]
SIZES = [16_384, 65_536, 131_072, 262_144, 1_048_576]
ELEMENTS = 16_384

# Counted by hand and by llvm-mca, for AVX-512 and 16 elements; a change of these kernels changes them.
ARITHMETIC = (
    " Five rules of one pass, among those furthest below 1, were looked at: they compute for longer than either loop "
    "takes. llvm-mca counts for 16 elements with AVX-512: Rprop 49 instructions in 26 cycles, SophiaG 24 in 12, "
    "SophiaH 25 in 14, MADGRAD 62 in 60, AdamAtan2 57 in 46 "
    "(before commit 7c79186 91 in 78, with two divisions). Rules of several passes also wait for sums, which are "
    "added in a fixed order."
)


def measure(piece, rounds):
    return {"threads": _threads, "bound": _bound}[piece](rounds)


def _threads(rounds):
    from statistics import median

    from benchmarks import jobs, timing

    import schuss

    def with_threads(n, threads):
        step = jobs.Job("AdamW", [n], **jobs.ADAMW).step

        def run():
            schuss.set_num_threads(threads)
            step()

        return run

    result, work = {}, timing.numpy_work()
    for n in SIZES:
        steps = {"one": with_threads(n, 1), "all": with_threads(n, jobs.THREADS)}
        result[str(n)] = {}
        for regime, options in (("hot", {}), ("paused", {"seconds": 0.004, "work": work})):
            taken = timing.interleave(steps, rounds, **options)
            result[str(n)][regime] = {"one": median(taken["one"]), "ratio": timing.ratio(taken, "one", "all")}
    return result


def _bound(rounds):
    """Times on one thread without the call: a step, its memory traffic alone, its divisions and square roots alone."""
    from statistics import median

    from benchmarks import floor, jobs, timing

    import schuss

    schuss.set_num_threads(1)
    result = {}
    try:
        empty = floor.make_divider(0, 0, 0)
    except floor.FloorUnavailable as reason:
        return {"missing": str(reason)}
    for case in jobs.CASES:
        if case.startswith(("NAG", "Lookahead", "Ranger")):  # they do more than one rule's step
            continue
        job, small = (jobs.Job(case, [jobs.shape(case, n)]) for n in (ELEMENTS, 1))
        steps = {"step": job.step, "call": small.step, "empty": empty}
        parts = list(zip(job.passes(), small.passes(), job.divider()))
        for k, (moved, nothing, operations) in enumerate(parts):
            steps[f"traffic {k}"], steps[f"nothing {k}"] = floor.make_pass(moved, 1), floor.make_pass(nothing, 1)
            steps[f"divider {k}"] = floor.make_divider(ELEMENTS, *operations) if sum(operations) else empty
        taken = timing.interleave(steps, rounds, seconds=0.003, rest=0)

        def net(name, base, taken=taken):
            """A loop without the cost of calling it, in each round."""
            return [loop - call for loop, call in zip(taken[name], taken[base])]

        ours = net("step", "call")
        traffic = list(zip(*(net(f"traffic {k}", f"nothing {k}") for k in range(len(parts)))))
        divider = list(zip(*(net(f"divider {k}", "empty") for k in range(len(parts)))))
        bounds = [sum(map(max, *both)) for both in zip(traffic, divider)]
        result[case] = {
            "net": median(ours),
            "traffic": median(map(sum, traffic)),
            "divider": median(map(sum, divider)),
            "reached": median(bound / own for bound, own in zip(bounds, ours)),
            "operations": [sum(column) for column in zip(*job.divider())],
        }
    return result


def tables(data):
    made = []
    if threads := data.get("threads"):
        text = "AdamW: the time on one thread divided by the time on all threads. Below 1, more threads are slower."
        head = ["elements", "one thread", "one / all", "one thread, paused", "one / all, paused"]
        rows = []
        for n, own in threads.items():
            cells = []
            for regime in ("hot", "paused"):
                cells += [time(own[regime]["one"]), bounded(own[regime]["ratio"], least=1 / 1.1)]
            rows.append([f"{int(n):,}", *cells])
        made.append(Table("In cache: all threads compared with one", text, head, rows))
    bound = data.get("bound", {})
    if bound and "missing" not in bound:
        text = (
            f"Float32, {ELEMENTS:,} elements, one thread, without the call overhead. The bound of a pass is the "
            "time of the slower of two loops: one with only its loads and stores, one with only its divisions and "
            "square roots; a power of 0.5 counts as a root, and an angle as a division. The last column is the sum "
            "of these bounds divided by our time: at 1, the rest of the arithmetic costs nothing."
        )
        text += ARITHMETIC
        head = ["optimizer", "divisions + roots", "ours", "traffic", "divider", "bound / ours"]
        rows = []
        for case, own in bound.items():
            divider = time(own["divider"]) if any(own["operations"]) else ""
            operations = " + ".join(map(str, own["operations"]))
            rows.append([case, operations, time(own["net"]), time(own["traffic"]), divider, short(own["reached"])])
        made.append(Table("In cache: compared with loads, stores and divisions alone", text, head, rows))
    return made


def targets(data):
    found = []
    for n, own in data.get("threads", {}).items():
        for regime, words in (("hot", "back to back"), ("paused", "after 1 ms of other work")):
            found.append((f"{int(n):,} elements, {words}: one thread / all", own[regime]["ratio"], ">=", 1 / 1.1))
    return found
