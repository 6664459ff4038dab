"""Steps and matrix products by turns: what more threads bring after a product, and what they cost the product."""

from .table import Table, bounded, short, time

PIECES = ["steps", "products"]
SIZES = [16_384, 131_072, 1_048_576, 4_194_304, 16_777_216]
# The product of others that runs beside ours, in the words of the page.
BESIDE = {"alone": "nothing", "torch": "torch's OpenMP threads", "process": "a second process"}


def measure(piece, rounds):
    if piece == "steps":
        return {str(n): steps(n, rounds) for n in SIZES}
    return {beside: products(beside, rounds) for beside in BESIDE}


def turns(n, rounds, beside=None):
    """Seconds in each round, ``{(threads, shared): [(step, product), ...]}``, by turns in blocks of one kind."""
    from statistics import median
    from time import perf_counter, sleep

    from benchmarks import jobs, timing

    import schuss

    product, step = timing.matrix_product(), jobs.Job("AdamW", [n]).step
    kinds = [(threads, shared) for shared in (False, True) for threads in (1, jobs.THREADS)]
    taken = {kind: [] for kind in kinds}
    calls = 6 if n > 1_048_576 else 20
    try:
        for turn in range(rounds):
            for threads, shared in kinds[turn % len(kinds) :] + kinds[: turn % len(kinds)]:
                sleep(timing.BLAS_REST)
                schuss.set_num_threads(threads)
                schuss.share_threads_with_blas(shared)
                own = []
                for _ in range(calls + 3):
                    if beside:
                        beside()
                    begin = perf_counter()
                    product()
                    middle = perf_counter()
                    step()
                    own.append((perf_counter() - middle, middle - begin))
                # The first ones wake threads.
                taken[threads, shared].append([median(each) for each in zip(*own[3:])])
    finally:
        schuss.share_threads_with_blas(False)
        schuss.set_num_threads(jobs.THREADS)
    return taken


def ratio(taken, kind, base, which):
    """The median over the rounds of one kind's time divided by another's."""
    from statistics import median

    return median(a[which] / b[which] for a, b in zip(taken[kind], taken[base]))


def steps(n, rounds):
    """What all threads bring to a step after a product: one thread's time divided by theirs."""
    from statistics import median

    from benchmarks.jobs import THREADS

    taken = turns(n, rounds)
    return {
        "seconds": median(step for step, _ in taken[THREADS, True]),
        "plain": ratio(taken, (1, False), (THREADS, False), 0),
        "shared": ratio(taken, (1, True), (THREADS, True), 0),
    }


def products(beside, rounds):
    """What our threads cost products: their time divided by that without our threads; empty without torch."""
    import subprocess
    import sys
    from importlib.util import find_spec

    from benchmarks.jobs import THREADS

    work = other = None
    if beside == "torch":
        if find_spec("torch") is None:
            return {}
        import torch

        torch.set_num_threads(THREADS)
        x = torch.ones(1_048_576)

        def work():
            x.add_(1)
    elif beside == "process":
        loop = "import numpy as np\na = np.ones((512, 512), np.float32)\nwhile True: a @ a"
        other = subprocess.Popen([sys.executable, "-c", loop])
        rounds *= 3  # with three busy threads on few cores, times vary most
    try:
        taken = turns(131_072, rounds, work)
    finally:
        if other:
            other.kill()
            other.wait()
    base = (1, False)
    return {"helpers": ratio(taken, (THREADS, False), base, 1), "shared": ratio(taken, (THREADS, True), base, 1)}


def tables(data):
    after = [
        [f"{int(n):,}", short(own["plain"]), bounded(own["shared"], least=_least(n)), time(own["seconds"])]
        for n, own in data.get("steps", {}).items()
    ]
    text = (
        "AdamW, float32, right after a product of two 512 x 512 matrices by NumPy's BLAS: its time on one thread "
        "divided by that on all, with BLAS's own threads and with share_threads_with_blas; and the time with it."
    )
    harm = [
        [BESIDE[beside], bounded(own["helpers"], most=1.03), bounded(own["shared"], most=1.03)]
        for beside, own in data.get("products", {}).items()
        if own
    ]
    cost = (
        "The product's time between steps of 131,072 elements on all threads, divided by that between steps on one, "
        "which have no helpers."
    )
    return [
        Table("Steps after a product", text, ["elements", "own threads", "shared", "time"], after),
        Table("Products between steps", cost, ["beside", "own threads", "shared"], harm),
    ]


def _least(n):
    return 1.25 if int(n) in (1_048_576, 4_194_304) else 0.95


def targets(data):
    found = []
    for n, own in data.get("steps", {}).items():
        found.append((f"{int(n):,} after a product: one thread / all", own["plain"], ">=", 0.95))
        found.append((f"{int(n):,} after a product, shared: one thread / all", own["shared"], ">=", _least(n)))
    for beside, own in data.get("products", {}).items():
        for how, value in own.items():
            found.append((f"a product between steps, beside {BESIDE[beside]}, {how}: / without", value, "<=", 1.03))
    return found
