"""Steps of PyTorch models through `schuss.torch`, compared with torch's fused AdamW, and a whole training loop."""

from .table import Table, speedup, time

STEPS = {
    "small transformer": ("small transformer", "float32"),
    "small transformer, bfloat16": ("small transformer", "bfloat16"),
    "EfficientNet-B1": ("EfficientNet-B1", "float32"),
    "PPO": ("PPO", "float32"),
}
LOOP = "training loop"
PIECES = [*STEPS, LOOP]
LEAST = {"small transformer": 1.0, "PPO": 3.0}


def measure(piece, rounds):
    from statistics import median

    from benchmarks import pytorch, timing

    if not pytorch.INSTALLED:
        return {}
    steps = pytorch.loops() if piece == LOOP else pytorch.steps(*STEPS[piece])
    taken = timing.interleave(steps, rounds, seconds=0.05)
    result = {"seconds": {name: median(each) for name, each in taken.items()}}
    result["ratio"] = {name: timing.ratio(taken, name, "schuss.torch") for name in taken if name != "schuss.torch"}
    return result


def tables(data):
    data = {piece: own for piece, own in data.items() if own}
    if not data:
        return []
    text = (
        "AdamW over a model's parameters, called as PyTorch calls it, with as many threads on both sides. The small "
        "transformer has 148 tensors and 24 million elements; PPO's network has 6 tensors and 5,000 elements. The last "
        "row is a whole training step of a small network, forward and backward pass included: there the optimizer is a "
        "part of the time."
    )
    rows = []
    for piece in (piece for piece in PIECES if piece in data):
        own = data[piece]
        cells = [
            speedup(own["ratio"][name], name) if name in own["ratio"] else ""
            for name in ("torch fused", "torch foreach")
        ]
        rows.append([piece, time(own["seconds"]["schuss.torch"]), *cells])
    return [Table("PyTorch models", text, ["model", "ours", "torch fused / ours", "torch foreach / ours"], rows)]


def targets(data):
    return [
        (f"{piece}: torch fused / schuss.torch", data[piece]["ratio"]["torch fused"], ">=", least)
        for piece, least in LEAST.items()
        if data.get(piece)
    ]
