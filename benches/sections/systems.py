"""Optimizers that are more than one rule: layerwise ones against NumPy, rectified and lookahead ones against AdamW,
Lookahead's synchronization against its floor, Newton against SciPy."""

import numpy as np

from .table import Table, bounded, short, time

PIECES = ["layerwise", "relatives", "synchronization", "Newton"]
MILLION = 1_048_576
LARGE = 33_554_432
UNKNOWNS = 2_000


def measure(piece, rounds):
    if piece == "layerwise":
        return {name: layerwise(name, rounds) for name in ("LARS", "LAMB")}
    if piece == "relatives":
        return {name: relative(name, rounds) for name in ("RAdam", "Ranger")}
    if piece == "synchronization":
        return {str(n): synchronization(n, rounds) for n in (8_388_608, LARGE)}
    return newton(rounds)


def layerwise(name, rounds):
    """A million elements compared with a NumPy expression; LAMB without clipping, which the expression lacks."""
    import sys
    from pathlib import Path
    from statistics import median

    from benchmarks import jobs, rivals, timing

    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    from numpy_expressions import EXPRESSIONS

    job = jobs.Job(name, [MILLION], max_grad_norm=None)
    (p,), (g,) = rivals.random_arrays([MILLION]), rivals.random_arrays([MILLION], seed=1)
    state, t = {}, 0

    def expression():
        nonlocal t
        t += 1
        EXPRESSIONS[name](p, g, state, t, **jobs.NEEDED.get(name, {}))

    expression()
    np.testing.assert_allclose(job.params, p, rtol=1e-4, atol=1e-6, err_msg=f"the expression of {name} is another")
    taken = timing.interleave({"schuss": job.step, "NumPy": expression}, rounds, seconds=0.02)
    return {"seconds": median(taken["schuss"]), "numpy": timing.ratio(taken, "NumPy", "schuss")}


def relative(name, rounds):
    """An optimizer over AdamW in the same run, and the bytes of the one over those of the other."""
    from statistics import median

    from benchmarks import jobs, timing

    job, base = (jobs.Job(case, [jobs.shape(case, LARGE)]) for case in (name, "AdamW"))
    taken = timing.interleave({"own": job.cycle, "AdamW": base.step}, rounds, seconds=0.04, rest=0)
    return {
        "seconds": median(taken["own"]) / job.period,
        "ratio": timing.ratio(taken, "own", "AdamW") / job.period,
        "bytes": job.bytes() / base.bytes(),
    }


def synchronization(n, rounds):
    """Lookahead's slow weights against the floor of their traffic."""
    from statistics import median

    from benchmarks import floor, jobs, timing

    job = jobs.Job("Lookahead(AdamW)", [n])
    base = floor.make_floor([floor.Pass((), (job.params,), (), (job.states()["slow"],))], jobs.THREADS)
    taken = timing.interleave({"sync": job.optimizer.sync, "floor": base}, rounds, seconds=0.04, rest=0)
    return {"seconds": median(taken["sync"]), "floor": timing.ratio(taken, "floor", "sync")}


def newton(rounds):
    """A damped system beside SciPy's; without SciPy nothing."""
    from importlib.util import find_spec
    from statistics import median

    from benchmarks import timing

    import schuss

    if find_spec("scipy") is None:
        return {}
    from scipy.linalg import cho_factor, cho_solve

    rng = np.random.default_rng(0)
    root = rng.standard_normal((UNKNOWNS, UNKNOWNS))
    hessian = root @ root.T + UNKNOWNS * np.eye(UNKNOWNS)
    grads = rng.standard_normal(UNKNOWNS)
    optimizer = schuss.Newton(np.zeros(UNKNOWNS))
    found, expected = optimizer._params[0], -cho_solve(cho_factor(hessian), grads)
    optimizer.step(grads, hessian)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
    steps = {
        "schuss": lambda: optimizer.step(grads, hessian),
        "SciPy": lambda: cho_solve(cho_factor(hessian), grads),
    }
    taken = timing.interleave(steps, min(rounds, 9), seconds=0.01)
    return {"seconds": median(taken["schuss"]), "ratio": timing.ratio(taken, "schuss", "SciPy")}


def tables(data):
    rows = []
    for name, own in data.get("layerwise", {}).items():
        numpy = bounded(own["numpy"], least=20)
        rows.append([f"{name}, 1,048,576 elements", time(own["seconds"]), "NumPy expression over ours", numpy, ">= 20"])
    for name, own in data.get("relatives", {}).items():
        share = bounded(own["ratio"] / own["bytes"], most=1.1)
        against = f"over AdamW, divided by their bytes' ratio, {short(own['bytes'])}"
        rows.append([f"{name}, {LARGE:,} elements", time(own["seconds"]), against, share, "<= 1.1"])
    for n, own in data.get("synchronization", {}).items():
        what = f"Lookahead's synchronization, {int(n):,} elements"
        rows.append([what, time(own["seconds"]), "floor over ours", bounded(own["floor"], least=0.95), ">= 0.95"])
    if own := data.get("Newton"):
        ratio = bounded(own["ratio"], most=1.5)
        rows.append([f"Newton, {UNKNOWNS:,} unknowns", time(own["seconds"]), "over SciPy", ratio, "<= 1.5"])
    text = (
        "LARS and LAMB (without clipping) compared with the expressions of examples/numpy_expressions.py, on one "
        "array. RAdam and Ranger compared with AdamW in the same run, on a matrix with rows of 1,024: Ranger adds the "
        "bytes of Lookahead and a read of the gradient for its means. Newton, float64, with NumPy's BLAS and LAPACK, "
        "compared with SciPy's cho_factor and cho_solve, each with its own threads."
    )
    return [Table("Systems", text, ["what", "time", "figure", "value", "target"], rows)]


def targets(data):
    found = [(f"{k}, 1 M: NumPy over ours", own["numpy"], ">=", 20) for k, own in data.get("layerwise", {}).items()]
    for name, own in data.get("relatives", {}).items():
        found.append((f"{name} over AdamW plus its bytes", own["ratio"] / own["bytes"], "<=", 1.1))
    for n, own in data.get("synchronization", {}).items():
        found.append((f"synchronization, {int(n):,}: floor over ours", own["floor"], ">=", 0.95))
    if own := data.get("Newton"):
        found.append(("Newton over SciPy", own["ratio"], "<=", 1.5))
    return found
