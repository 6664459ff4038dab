"""The machine's speed: how fast one thread and all of them reach memory, which the page says beside the CPU."""

PIECES = ["speed"]
ELEMENTS = 134_217_728


def measure(piece, rounds):
    """Bytes per second by number of threads, of AdamW's loads and stores without its arithmetic."""
    from benchmarks import floor, jobs, timing

    job = jobs.Job("AdamW", [ELEMENTS])
    try:
        loops = {str(n): floor.make_floor(job.passes(), n) for n in sorted({1, jobs.THREADS})}
    except floor.FloorUnavailable as reason:
        return {"missing": str(reason)}
    taken = timing.interleave(loops, min(rounds, 7), seconds=0.04, rest=0)
    return {threads: job.bytes() * ELEMENTS / min(each) for threads, each in taken.items()}


def tables(data):
    return []


def targets(data):
    return []
