"""Many arrays in one step, compared with one array of as many elements, and with torch."""

from .table import Table, bounded, speedup, time

PIECES = ["1000 x 1000", "10,000 x 100", "EfficientNet-B1", "GPT-2 small"]
MOST = {"10,000 x 100": 1.5}


def measure(piece, rounds):
    from math import prod
    from statistics import median

    from benchmarks import jobs, libraries, timing
    from benchmarks.models import LAYOUTS

    shapes = LAYOUTS[piece]
    total = sum(map(prod, shapes))
    job, flat = jobs.Job("AdamW", shapes, **jobs.ADAMW), jobs.Job("AdamW", [total], **jobs.ADAMW)
    taken = timing.interleave({"many": job.step, "flat": flat.step}, rounds, seconds=0.02, **timing.HOT)
    result = {"arrays": len(shapes), "elements": total, "seconds": median(taken["many"])}
    result["flat"] = timing.ratio(taken, "many", "flat")
    del flat
    if "torch fused" in libraries.LIBRARIES:
        step, _ = libraries.torch_step(shapes, threads=jobs.THREADS)
        taken = timing.interleave({"many": job.step, "torch": step}, min(rounds, 7), seconds=0.02)
        result["torch"] = timing.ratio(taken, "torch", "many")
    return result


def tables(data):
    text = (
        'AdamW, float32: a list of arrays in one call. "List / one array" is its time divided by that of our step over '
        "a single array with as many elements, both back to back; the target is at most 1.15 (1.5 for arrays of 100). "
        "EfficientNet-B1 and GPT-2 small have the shapes of these models' parameters."
    )
    rows = []
    for piece in PIECES:
        own = data.get(piece)
        if own:
            flat = bounded(own["flat"], most=MOST.get(piece, 1.15))
            torch = speedup(own["torch"], "torch fused") if "torch" in own else ""
            rows.append([piece, f"{own['arrays']:,}", f"{own['elements']:,}", time(own["seconds"]), flat, torch])
    head = ["parameters", "arrays", "elements", "ours", "list / one array", "torch fused / ours"]
    return [Table("Many arrays", text, head, rows)]


def targets(data):
    found = []
    for piece, own in data.items():
        found.append((f"{piece}: list / one array", own["flat"], "<=", MOST.get(piece, 1.15)))
    if "torch" in data.get("1000 x 1000", {}):
        found.append(("1000 x 1000: torch fused / ours", data["1000 x 1000"]["torch"], ">=", 20))
    return found
