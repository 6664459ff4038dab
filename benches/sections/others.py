"""AdamW compared with other libraries, from a thousand elements to 32 million."""

from .table import Table, speedup, time

PIECES = [
    "torch fused",
    "torch foreach",
    "numba",
    "numba parallel",
    "numba parallel fastmath",
    "DeepSpeed CPUAdam",
    "optax",
    "NumPy",
]
HOT = [1_024, 16_384, 65_536, 131_072, 262_144, 1_048_576, 8_388_608, 33_554_432]
PAUSED = HOT[1:6]
# The regimes with work before each step, in the words of the page; sizes are those of PAUSED.
WORDS = {"paused": "after 1 ms of other work", "matmul": "after a matrix product"}
# Seconds of a library's turn and of the rest before it: back to back, with large arrays, with work before each step.
TURN, LARGE_TURN, WORK_TURN = (0.01, 0.005), (0.05, 0.002), (0.004, 0.005)
LARGE = 1_048_576  # elements; more than that are large
# Slow libraries are not measured at sizes that take too long, nor one thread at sizes where all threads are used.
LARGEST = {"torch foreach": 8_388_608, "numba": 131_072, "NumPy": 8_388_608}


def measure(piece, rounds):
    import numpy as np
    from benchmarks import jobs, libraries, timing

    if piece not in libraries.LIBRARIES:
        return {"missing": libraries.MISSING[piece]}
    works = {"paused": timing.numpy_work(), "matmul": timing.matrix_product()}
    result = {"hot": {}, **{regime: {} for regime in works}}
    for n in HOT:
        if n > LARGEST.get(piece, n):
            continue
        job = jobs.Job("AdamW", [n], **jobs.ADAMW)
        try:
            step, params = libraries.LIBRARIES[piece]([n], threads=jobs.THREADS)
        except Exception as error:  # installed, but it does not run here, which the page must say
            return {"missing": f"does not run here ({type(error).__name__})"}
        params = params() if callable(params) else params
        np.testing.assert_allclose(
            job.params, params[0], rtol=2e-5, atol=2e-6, err_msg=f"{piece} computes something else"
        )
        steps = {"schuss": job.step, piece: step}
        seconds, rest = LARGE_TURN if n > LARGE else TURN
        result["hot"][str(n)] = _figures(timing.interleave(steps, rounds, seconds, rest), piece)
        for regime, work in works.items() if n in PAUSED else ():
            taken = timing.interleave(steps, rounds, *WORK_TURN, work=work)
            result[regime][str(n)] = _figures(taken, piece)
    return result


def _figures(taken, piece):
    from statistics import median

    from benchmarks.timing import ratio

    return {"schuss": median(taken["schuss"]), "library": median(taken[piece]), "ratio": ratio(taken, piece, "schuss")}


def present(data):
    return [piece for piece in PIECES if "hot" in data.get(piece, {})]


def ours(data, regime, n):
    """Our time: the median over the processes, each of which measures one library."""
    from statistics import median

    found = (data[piece].get(regime, {}).get(str(n)) for piece in present(data))
    return median(own["schuss"] for own in found if own)


def _rows(data, regime, sizes):
    for n in sizes:
        found = [data[piece].get(regime, {}).get(str(n)) for piece in present(data)]
        if any(found):
            yield [
                f"{n:,}",
                time(ours(data, regime, n)),
                *(speedup(own["ratio"], piece) if own else "" for piece, own in zip(present(data), found)),
            ]


def tables(data):
    head = ["elements", "schuss", *present(data)]
    left_out = [f"{piece} ({own['missing']})" for piece, own in data.items() if "missing" in own]
    text = (
        "AdamW, float32, one array, called from Python: our time, and the other libraries' time divided by it. Below "
        "1, in bold, the other library is faster. Each library ran in its own process, where it took turns with "
        f"schuss: {TURN[0] * 1e3:.0f} ms of steps after a rest of {TURN[1] * 1e3:.0f}, above "
        f"{LARGE:,} elements {LARGE_TURN[0] * 1e3:.0f} after {LARGE_TURN[1] * 1e3:.0f}. The first step of a turn does "
        "not count. Our time is the median over these processes. Before timing, both took the same step and their "
        "parameters were compared. torch, DeepSpeed and parallel numba have as many threads as schuss, optax as many "
        "as XLA chooses, numba and NumPy one. numba is the same loop written by hand; fastmath allows inexact results. "
        "NumPy is the textbook expression with in-place operators. Empty cells were not measured."
    )
    if left_out:
        text += f" Left out here: {', '.join(left_out)}."
    paused = (
        f"The same with a millisecond of NumPy work before every step, which is not counted, in turns of as many steps "
        f"as take {WORK_TURN[0] * 1e3:.0f} ms, 20 at most. As in a training loop, "
        "threads are asleep and the caches hold other data."
    )
    product = (
        "The same with a product of two matrices before every step, by NumPy's BLAS on all cores, which is not "
        "counted. BLAS's threads spin for a while after it, and take cores from libraries that need all of theirs."
    )
    texts = {"hot": ("back to back", text, HOT), "paused": (WORDS["paused"], paused, PAUSED)}
    texts["matmul"] = (WORDS["matmul"], product, PAUSED)
    return [
        Table(f"Other libraries, {words}", text, head, list(_rows(data, regime, sizes)))
        for regime, (words, text, sizes) in texts.items()
    ]


_TORCH = {
    "hot": {16_384: 4, 131_072: 2, 262_144: 1.6, 1_048_576: 1.3},
    "paused": {16_384: 5, 131_072: 1.6, 262_144: 1.3, 1_048_576: 1.3},
}


def targets(data):
    found = []
    for regime, words in (("hot", "back to back"), ("paused", WORDS["paused"])):
        for n in PAUSED:
            least = {"numba parallel": 1, "numba parallel fastmath": 0.9, "DeepSpeed CPUAdam": 1}
            if n in _TORCH[regime]:
                least["torch fused"] = _TORCH[regime][n]
            for piece, bound in least.items():
                if piece in present(data):
                    what = f"{n:,} elements, {words}: {piece} / ours"
                    found.append((what, data[piece][regime][str(n)]["ratio"], ">=", bound))
    return found
