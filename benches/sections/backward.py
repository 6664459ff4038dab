"""A training step that updates array by array within the backward pass, beside one that updates at its end."""

from .table import Table, bounded, time

PIECES = ["NumPy", "PyTorch"]


def measure(piece, rounds):
    from statistics import median

    from benchmarks import backward, timing

    if piece not in backward.LIBRARIES:
        return {}
    taken = timing.interleave({way: backward.made(piece, way) for way in backward.WAYS}, rounds, seconds=0.2)
    return {
        "seconds": {way: median(each) for way, each in taken.items()},
        "ratio": timing.ratio(taken, "step", "stepping"),
        "bytes": {way: backward.peak(piece, way) for way in backward.WAYS},
    }


def tables(data):
    data = {piece: own for piece, own in data.items() if own}
    if not data:
        return []
    text = (
        "A training step of a network of eight layers of 1024 × 1024 with AdamW, forward and backward pass included, "
        "on a batch of 64. ``stepping()`` updates each layer as soon as its gradient exists. The memory is what a step "
        "needs at its peak beyond what it finds; the gradients of all layers have 34 MB."
    )
    head = ["library", "step at the end", "array by array", "time ratio", "memory at the end", "array by array"]
    rows = []
    for piece, own in data.items():
        seconds, size = own["seconds"], own["bytes"]
        cells = [time(seconds["step"]), time(seconds["stepping"]), bounded(own["ratio"], least=0.95)]
        rows.append([piece, *cells, *(f"{size[way] / 1e6:.0f} MB" for way in ("step", "stepping"))])
    return [Table("Updates within the backward pass", text, head, rows)]


def targets(data):
    return [(f"{piece}: array by array", own["ratio"], ">=", 0.95) for piece, own in data.items() if own]
