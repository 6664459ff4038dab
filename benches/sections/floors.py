"""Optimizers over arrays larger than the caches, compared with the time of their memory traffic alone."""

from .table import Table, bounded, short, time

PIECES = ["8388608", "33554432", "134217728"]


# Counted by hand and by llvm-mca, for AVX-512 on Sapphire Rapids; a change of these kernels changes them.
ARITHMETIC = (
    " Some rules compute for longer than they wait for memory. With AVX-512 on Sapphire Rapids, the 28 bytes of Adam "
    "take a core about 50 cycles for 16 elements past the caches, and about 30 in a large last-level cache. The loop "
    "of AdamAtan2 has 57 instructions for them, of which a root and a division: 46 cycles according to llvm-mca; "
    "before commit 7c79186 it had 91, with two divisions. "
    "That of MADGRAD has 62, mostly for its cube root: 60 cycles. Those of PAdam, FTRL and Adadelta have two roots and "
    "a division, with which the divider is busy for 34 cycles; AdamW's takes 22."
)


def measure(piece, rounds):
    from statistics import median

    from benchmarks import jobs, timing
    from benchmarks.floor import FloorUnavailable

    result = {}
    for case in jobs.CASES:
        job = jobs.Job(case, [jobs.shape(case, int(piece))])
        try:
            steps = {"schuss": job.cycle, "floor": job.floor()}
        except FloorUnavailable as reason:
            return {"missing": str(reason)}
        taken = timing.interleave(steps, min(rounds, 7 if int(piece) > 5e7 else 99), seconds=0.04, rest=0)
        result[case] = {
            "bytes": job.bytes(),
            "seconds": median(taken["schuss"]) / job.period,
            "ratio": timing.ratio(taken, "floor", "schuss"),
        }
        del job, steps
    return result


def tables(data):
    sizes = [piece for piece in PIECES if data.get(piece) and "missing" not in data[piece]]
    if not sizes:
        return []
    text = (
        "Float32, a matrix with rows of 1,024, or one dimension (flat). Bytes per element are those that a step has to "
        "move: what its passes read, and twice what they write (Lookahead's synchronization on average). Each figure "
        "is the time of a loop with only these loads and stores, divided by the time of the step; the two alternate on "
        "the same arrays. 1 is as fast as memory allows. Values above 1 come from data still cached from the previous "
        "step. Figures below 0.95 are bold. Newton, Muon, SOAP, Shampoo and LBFGS are in other tables."
    )
    text += ARITHMETIC
    head = ["optimizer", "bytes", *(f"{int(n):,}" for n in sizes), f"{int(sizes[-1]):,} in", "GB/s"]
    rows = []
    for case, own in data[sizes[0]].items():
        largest = data[sizes[-1]][case]
        ratios = [bounded(data[n][case]["ratio"], least=0.95) for n in sizes]
        rate = largest["bytes"] * int(sizes[-1]) / largest["seconds"] / 1e9
        rows.append([case, f"{own['bytes']:.3g}", *ratios, time(largest["seconds"]), short(rate)])
    return [Table("Larger than the caches: compared with the floor of memory traffic", text, head, rows)]


def targets(data):
    found = []
    for piece in PIECES:
        for case, own in data.get(piece, {}).items():
            if case != "missing":
                found.append((f"{int(piece):,} elements: floor / {case}", own["ratio"], ">=", 0.95))
    return found
