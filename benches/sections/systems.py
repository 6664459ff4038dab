"""Optimizers that do more than one rule.

Layerwise ones are compared with NumPy, RAdam and Ranger with AdamW, Lookahead's synchronization with its floor, Newton
with SciPy, Muon with its matrix products and with PyTorch, SOAP and Shampoo with their matrix products.
"""

import numpy as np

from .table import Table, bounded, short, speedup, time

PIECES = ["layerwise", "relatives", "synchronization", "Newton", "Muon", "preconditioned"]
MILLION = 1_048_576
LARGE = 33_554_432
UNKNOWNS = 2_000
MATRIX = (768, 3_072)
# Of a matrix with preconditioners: its sides, how often a step multiplies it by both, and the options without which
# steps would differ in what LAPACK does.
SIDES = (768, 1_024)
PRECONDITIONED = {"SOAP": (3, {"precondition_frequency": 1_000_000}), "Shampoo": (1, {"update_freq": 1_000_000})}


def measure(piece, rounds):
    if piece == "layerwise":
        return {name: layerwise(name, rounds) for name in ("LARS", "LAMB")}
    if piece == "relatives":
        return {name: relative(name, rounds) for name in ("RAdam", "Ranger")}
    if piece == "synchronization":
        return {str(n): synchronization(n, rounds) for n in (8_388_608, LARGE)}
    if piece == "preconditioned":
        return {name: preconditioned(name, rounds) for name in PRECONDITIONED}
    return newton(rounds) if piece == "Newton" else muon(rounds)


def layerwise(name, rounds):
    """A million elements compared with a NumPy expression; LAMB without clipping, which the expression lacks."""
    import sys
    from pathlib import Path
    from statistics import median

    from benchmarks import jobs, libraries, timing

    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    from numpy_expressions import EXPRESSIONS

    job = jobs.Job(name, [MILLION], max_grad_norm=None)
    (p,), (g,) = libraries.random_arrays([MILLION]), libraries.random_arrays([MILLION], seed=1)
    state, t = {}, 0

    def expression():
        nonlocal t
        t += 1
        EXPRESSIONS[name](p, g, state, t, **jobs.NEEDED.get(name, {}))

    expression()
    np.testing.assert_allclose(
        job.params, p, rtol=1e-4, atol=1e-6, err_msg=f"the expression of {name} computes something else"
    )
    taken = timing.interleave({"schuss": job.step, "NumPy": expression}, rounds, seconds=0.02)
    return {"seconds": median(taken["schuss"]), "numpy": timing.ratio(taken, "NumPy", "schuss")}


def relative(name, rounds):
    """An optimizer's time divided by AdamW's in the same run, and its bytes divided by AdamW's."""
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
    """Lookahead's synchronization, compared with the floor of its memory traffic."""
    from statistics import median

    from benchmarks import floor, jobs, timing

    job = jobs.Job("Lookahead(AdamW)", [n])
    base = floor.make_floor([floor.Pass((), (job.params,), (), (job.states()["slow"],))], jobs.THREADS)
    taken = timing.interleave({"sync": job.optimizer.sync, "floor": base}, rounds, seconds=0.04, rest=0)
    return {"seconds": median(taken["sync"]), "floor": timing.ratio(taken, "floor", "sync")}


def newton(rounds):
    """Newton's linear system compared with SciPy; empty without SciPy."""
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
    taken = timing.interleave(steps, min(rounds, 9), seconds=0.05, rest=timing.BLAS_REST)
    return {"seconds": median(taken["schuss"]), "ratio": timing.ratio(taken, "schuss", "SciPy")}


def muon(rounds):
    """A step of Muon, the share of it that matrix products take, and PyTorch's time where it is installed."""
    from importlib.util import find_spec
    from statistics import median

    from benchmarks import libraries, timing

    import schuss

    (w,), (g,) = libraries.random_arrays([MATRIX]), libraries.random_arrays([MATRIX], seed=1)
    optimizer = schuss.Muon(w)
    steps = {"schuss": lambda: optimizer.step(g)}
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(schuss.get_num_threads())
        theirs = torch.nn.Parameter(torch.from_numpy(w.copy()))
        theirs.grad = torch.from_numpy(g)
        steps["torch"] = torch.optim.Muon([theirs]).step
    taken = timing.interleave(steps, min(rounds, 9), seconds=0.05, rest=timing.BLAS_REST)
    others = {name: timing.ratio(taken, name, "schuss") for name in steps if name != "schuss"}
    return {"seconds": median(taken["schuss"]), "products": median(map(products, [steps["schuss"]] * 5)), **others}


def preconditioned(name, rounds):
    """A step between two that compute eigenvectors, compared with its matrix products alone; the others' time."""
    from statistics import median
    from time import perf_counter

    from benchmarks import libraries, timing

    import schuss

    times, options = PRECONDITIONED[name]
    (w,), (g,) = libraries.random_arrays([SIDES]), libraries.random_arrays([SIDES], seed=1)
    optimizer = getattr(schuss, name)(w, lr=1e-6, **options)
    frequency = next(iter(options))
    left, right = (np.empty((n, n), w.dtype) for n in w.shape)
    one, other = np.empty_like(w), np.empty_like(w)

    def rare():
        """A step that computes eigenvectors, or refines them."""
        optimizer.param_groups[0][frequency] = 1
        begin = perf_counter()
        optimizer.step(g)
        taken = perf_counter() - begin
        optimizer.param_groups[0].update(options)
        return taken

    optimizer.step(g)
    seconds = median(rare() for _ in range(3))

    def products():
        np.matmul(g, g.T, out=left)
        np.matmul(g.T, g, out=right)
        for _ in range(times):
            np.matmul(left, g, out=one)
            np.matmul(one, right, out=other)

    taken = timing.interleave({"schuss": lambda: optimizer.step(g), "products": products}, min(rounds, 9), seconds=0.01)
    ratio = timing.ratio(taken, "schuss", "products")
    return {"seconds": median(taken["schuss"]), "products": ratio, "eigenvectors": seconds}


def products(step):
    """The share of a step's time that NumPy's matrix products take."""
    from time import perf_counter
    from unittest import mock

    real, inside = np.matmul, 0.0

    def timed(*arguments, **options):
        nonlocal inside
        start = perf_counter()
        real(*arguments, **options)
        inside += perf_counter() - start

    with mock.patch.object(np, "matmul", timed):
        start = perf_counter()
        step()
        return inside / (perf_counter() - start)


def tables(data):
    rows = []
    for name, own in data.get("layerwise", {}).items():
        numpy = speedup(own["numpy"], "NumPy", 20)
        rows.append([f"{name}, 1,048,576 elements", time(own["seconds"]), "NumPy expression / ours", numpy, ">= 20"])
    for name, own in data.get("relatives", {}).items():
        share = bounded(own["ratio"] / own["bytes"], most=1.1)
        figure = f"ours / AdamW, divided by the ratio of their bytes, {short(own['bytes'])}"
        rows.append([f"{name}, {LARGE:,} elements", time(own["seconds"]), figure, share, "<= 1.1"])
    for n, own in data.get("synchronization", {}).items():
        what = f"Lookahead's synchronization, {int(n):,} elements"
        rows.append([what, time(own["seconds"]), "floor / ours", bounded(own["floor"], least=0.95), ">= 0.95"])
    if own := data.get("Newton"):
        ratio = speedup(1 / own["ratio"], "SciPy")
        rows.append([f"Newton, {UNKNOWNS:,} unknowns", time(own["seconds"]), "SciPy / ours", ratio, ">= 0.67"])
    if own := data.get("Muon"):
        what = f"Muon, {MATRIX[0]:,} x {MATRIX[1]:,}"
        rows.append([what, time(own["seconds"]), "share of matrix products", short(own["products"]), ""])
        if "torch" in own:
            rows.append([what, time(own["seconds"]), "PyTorch / ours", speedup(own["torch"], "PyTorch", 2), ">= 2"])
    for name, own in data.get("preconditioned", {}).items():
        what = f"{name}, {SIDES[0]:,} x {SIDES[1]:,}"
        rows.append([what, time(own["seconds"]), "ours / its matrix products", short(own["products"]), ""])
        rows.append([what, time(own["eigenvectors"]), "a step with eigenvectors", "", ""])
    text = (
        "LARS and LAMB (without clipping) are compared with the expressions of examples/numpy_expressions.py, on one "
        "array. RAdam and Ranger are compared with AdamW in the same run, on a matrix with rows of 1,024; Ranger also "
        "moves Lookahead's bytes, and reads the gradient once more for its means. Newton, float64, with NumPy's BLAS "
        "and LAPACK, is compared with SciPy's cho_factor and cho_solve, each with its own threads. Muon, float32, also "
        "uses NumPy's BLAS; PyTorch's iterations are in bfloat16. SOAP and Shampoo, float32, use its BLAS and LAPACK."
    )
    return [Table("Systems", text, ["what", "time", "figure", "value", "target"], rows)]


def targets(data):
    found = [(f"{k}, 1 M: NumPy / ours", own["numpy"], ">=", 20) for k, own in data.get("layerwise", {}).items()]
    for name, own in data.get("relatives", {}).items():
        found.append((f"{name} / AdamW, divided by the ratio of bytes", own["ratio"] / own["bytes"], "<=", 1.1))
    for n, own in data.get("synchronization", {}).items():
        found.append((f"synchronization, {int(n):,}: floor / ours", own["floor"], ">=", 0.95))
    if own := data.get("Newton"):
        found.append(("Newton: SciPy / ours", 1 / own["ratio"], ">=", 0.67))
    if "torch" in (own := data.get("Muon", {})):
        found.append(("Muon: PyTorch / ours", own["torch"], ">=", 2))
    return found
