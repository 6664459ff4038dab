"""The overhead of a call from Python."""

from .table import Table, cell, time

PIECES = ["calls"]
COUNTS = [1, 10, 100, 1_000]


def measure(piece, rounds):
    from statistics import median

    from benchmarks import jobs, many, timing

    steps = {f"one {n}": jobs.Job("AdamW", [n], **jobs.ADAMW).step for n in (1, 1_024)}
    steps |= {f"many {n}": jobs.Job("AdamW", [16] * n, **jobs.ADAMW).step for n in COUNTS}
    around = {call: many.around(call) for call in many.AROUND}
    taken = timing.interleave(steps | around, 2 * rounds, seconds=0.005, rest=0)
    times = {name: median(each) for name, each in taken.items()}
    return {**{name: times[name] for name in steps}, "around": {name: times[name] for name in around}}


def tables(data):
    own = data.get("calls")
    if not own:
        return []
    text = (
        "AdamW, float32, back to back. One element is nearly all overhead. The last rows are lists of arrays of 16 "
        "elements, including their arithmetic, then what is called around or beside a step over 100 of these. The "
        "targets are 1 µs for one element and 60 ns for each of 100 arrays."
    )
    rows = [
        ["one array of one element", bounded_time(own["one 1"], 1e-6), ""],
        ["one array of 1,024", time(own["one 1024"]), ""],
    ]
    for n in COUNTS:
        each = own[f"many {n}"] / n
        rows.append([f"{n:,} arrays of 16", time(own[f"many {n}"]), bounded_time(each, 60e-9 if n == 100 else None)])
    rows += [[f"{name}, 100 arrays of 16", time(taken), time(taken / 100)] for name, taken in own["around"].items()]
    return [Table("From Python", text, ["call", "time", "per array"], rows)]


def bounded_time(seconds, most):
    return cell(time(seconds), lost=most is not None and seconds > most)


def targets(data):
    own = data.get("calls")
    if not own:
        return []
    return [
        ("one element: µs", own["one 1"] * 1e6, "<=", 1.0),
        ("100 small arrays: ns per array", own["many 100"] / 100 * 1e9, "<=", 60),
    ]
