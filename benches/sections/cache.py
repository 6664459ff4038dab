"""Arrays in cache: all threads compared with one, and every optimizer with its divisions and memory accesses alone."""

from .table import Table, bounded, short, time

PIECES = ["threads", "bound"]
SIZES = [16_384, 65_536, 131_072, 262_144, 1_048_576]
ELEMENTS = 16_384


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
        divisions, roots = job.divider()
        steps = {
            "step": job.step,
            "call": small.step,
            "traffic": job.floor(1),
            "nothing": small.floor(1),
            "empty": empty,
        }
        steps["divider"] = floor.make_divider(ELEMENTS, divisions, roots) if divisions + roots else empty
        taken = timing.interleave(steps, rounds, seconds=0.003, rest=0)
        net = [step - call for step, call in zip(taken["step"], taken["call"])]
        pairs = (("traffic", "nothing"), ("divider", "empty"))  # a loop, and the cost of calling it
        bounds = [[loop - call for loop, call in zip(taken[name], taken[base])] for name, base in pairs]
        reached = median(max(own) / ours for ours, *own in zip(net, *bounds))
        traffic, divider = map(median, bounds)
        own = {"net": median(net), "traffic": traffic, "divider": divider, "reached": reached}
        result[case] = {**own, "operations": [divisions, roots]}
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
            f"Float32, {ELEMENTS:,} elements, one thread, without the call overhead. The bound is the time of the "
            "slower of two loops: one with only the step's loads and stores, one with only its divisions and square "
            "roots; a power of 0.5 counts as a root, and an angle as two divisions. The last column is the bound "
            "divided by our time: at 1, the rest of the arithmetic costs nothing."
        )
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
