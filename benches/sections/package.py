"""The package: import time beyond NumPy's, size, checkpoints, memory of a step."""

from .table import Table, bounded, short

PIECES = ["import", "size", "checkpoint", "growth"]


def measure(piece, rounds):
    from statistics import median

    from benchmarks import memory, package

    if piece == "import":
        taken = package.import_seconds(3 * rounds)
        return {"least": min(taken), "median": median(taken)}
    if piece == "size":
        return {"wheel": package.wheel_size()}
    if piece == "checkpoint":
        own = package.Checkpoint()
        own.setup()
        try:
            return {"save": own.rate(own.save), "load": own.rate(own.load)}
        finally:
            own.teardown()
    return {case: memory.measure_growth(case) for case in memory.GROWTH}


def tables(data):
    rows = []
    if own := data.get("import"):
        least, middle = own["least"] * 1e3, own["median"] * 1e3
        words = f"milliseconds, median (minimum {short(least)})"
        rows.append(["import, beyond NumPy's", words, bounded(middle, most=30), "<= 30"])
    if own := data.get("size"):
        rows.append(["wheel", "MB", bounded(own["wheel"] / 1e6, most=4), "<= 4"])
    if own := data.get("checkpoint"):
        rows.append(["checkpoint of 96 MB, save and flush", "MB/s", short(own["save"]), ""])
        rows.append(["checkpoint of 96 MB, load", "MB/s", short(own["load"]), ""])
    for case, value in data.get("growth", {}).items():
        most = 1 if case in ("one array", "1000 arrays") else None
        value = bounded(value / 2**20, most=most) if most else short(value / 2**20)
        rows.append([f"memory that a step adds: {case}", "MiB", value, "<= 1" if most else ""])
    text = (
        "Import times are those of new processes with cached compiled files, as after an installation by pip. "
        "Checkpoint rates depend on disk and page cache. Memory that a step adds is its peak beyond parameters, "
        "gradients and state, for 8 M elements of float32 unless noted; gradients with another layout are copied as a "
        "whole."
    )
    return [Table("The package", text, ["what", "unit", "value", "target"], rows)]


def targets(data):
    found = []
    if own := data.get("import"):
        found.append(("import beyond NumPy's, ms", own["median"] * 1e3, "<=", 30))
    if own := data.get("size"):
        found.append(("wheel, MB", own["wheel"] / 1e6, "<=", 4))
    for case in ("one array", "1000 arrays"):
        if case in data.get("growth", {}):
            found.append((f"memory growth, {case}, MiB", data["growth"][case] / 2**20, "<=", 1))
    return found
