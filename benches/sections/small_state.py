"""State in less memory compared with float32 state: its gain when memory-bound, and its cost in cache."""

from .table import Table, bounded, short, time

SIZES = {"16384": 16_384, "1048576": 1_048_576, "67108864": 67_108_864}
PIECES = list(SIZES)
WAYS = {
    "float32": {},
    "bfloat16": {"state_dtype": "bfloat16"},
    "bfloat16, nearest": {"state_dtype": "bfloat16", "state_rounding": "nearest"},
    "int8": {"state_dtype": "int8"},
}
PAST_CACHE = "67108864"
LEAST = {"bfloat16": 1.3, "int8": 1.4}


def measure(piece, rounds):
    from statistics import median

    from benchmarks import jobs, timing

    n = SIZES[piece]
    steps = {way: jobs.Job("AdamW", [n], **jobs.ADAMW, **options).step for way, options in WAYS.items()}
    taken = timing.interleave(steps, rounds)
    return {
        "seconds": {way: median(each) for way, each in taken.items()},
        "ratio": {way: timing.ratio(taken, "float32", way) for way in WAYS if way != "float32"},
    }


def tables(data):
    if not data:
        return []
    text = (
        "AdamW, float32 parameters and gradients: the time of a step, and its speedup over float32 state in the same "
        "round. A step moves 28 bytes per element with float32 state, 20 with bfloat16, 16 with int8. In cache, the "
        "extra arithmetic makes it slower."
    )
    rows = []
    for piece in (piece for piece in PIECES if piece in data):
        own = data[piece]
        row = [f"{SIZES[piece]:,}", time(own["seconds"]["float32"])]
        for way, ratio in own["ratio"].items():
            least = LEAST.get(way) if piece == PAST_CACHE else None
            row += [time(own["seconds"][way]), short(ratio) if least is None else bounded(ratio, least=least)]
        rows.append(row)
    head = ["elements", "float32"]
    for way in list(WAYS)[1:]:
        head += [way, "speedup"]
    return [Table("State in less memory", text, head, rows)]


def targets(data):
    own = data.get(PAST_CACHE)
    if not own:
        return []
    what = f"{SIZES[PAST_CACHE]:,} elements, AdamW with {{}} state: speedup over float32 state"
    return [(what.format(way), own["ratio"][way], ">=", least) for way, least in LEAST.items()]
