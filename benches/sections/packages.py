"""Optimizers that few packages have, compared with those packages: each with the threads that it takes by itself.

An iteration of L-BFGS is compared with PyTorch's and SciPy's, from one start; averages that a wrapper keeps, with the
floor of their memory traffic.
"""

from importlib.util import find_spec
from statistics import median

from .table import Table, bounded, speedup, time

# Of each comparison: the optimizer, the parameters, and the other package's module, its name, and the bound of its time
# over ours.
STEPS = {
    "Adafactor": ("Adafactor", "GPT-2 small", "torch", "PyTorch, foreach", 5),
    "Prodigy": ("Prodigy", "small transformer", "prodigyopt", "prodigyopt", 5),
    "ScheduleFreeAdamW": ("ScheduleFreeAdamW", "small transformer", "schedulefree", "schedulefree", 5),
    "Prodigy, large": ("Prodigy", "GPT-2 small", "prodigyopt", "prodigyopt", 5),
    "ScheduleFreeAdamW, large": ("ScheduleFreeAdamW", "GPT-2 small", "schedulefree", "schedulefree", 5),
}
LBFGS, EMA = "LBFGS", "EMA"
PIECES = [*STEPS, LBFGS, EMA]
UNKNOWNS, ITERATIONS = 1_048_576, 20
AVERAGED = 8_388_608
LEAST = {"torch": 2, "SciPy": 1}


def measure(piece, rounds):
    if piece == LBFGS:
        return iterations(min(rounds, 5))
    if piece == EMA:
        return averages(rounds)
    return steps(piece, rounds)


def steps(piece, rounds):
    """A step over a model's parameters; empty without the other package."""
    from benchmarks import jobs, libraries, models, timing

    name, layout, module, _, _ = STEPS[piece]
    if find_spec("torch") is None or find_spec(module) is None:
        return {}
    import torch

    torch.set_num_threads(jobs.THREADS)
    shapes = {**models.LAYOUTS, **models.TORCH_MODELS}[layout]
    job = jobs.Job(name, shapes)
    params = [torch.nn.Parameter(torch.from_numpy(array)) for array in libraries.random_arrays(shapes)]
    for param, gradient in zip(params, libraries.random_arrays(shapes, seed=1)):
        param.grad = torch.from_numpy(gradient)
    if name == "Adafactor":
        theirs = torch.optim.Adafactor(params, lr=1e-6, foreach=True)
    elif name == "Prodigy":
        from prodigyopt import Prodigy

        theirs = Prodigy(params, lr=1e-6)
    else:
        from schedulefree import AdamWScheduleFree

        theirs = AdamWScheduleFree(params)
        theirs.train()
    taken = timing.interleave({"schuss": job.step, "theirs": theirs.step}, min(rounds, 9), seconds=0.1)
    return {"seconds": median(taken["schuss"]), "ratio": timing.ratio(taken, "theirs", "schuss")}


def iterations(rounds):
    """Twenty iterations with strong Wolfe line searches from one start, float64, a history of 10."""
    import numpy as np
    from benchmarks import jobs, timing

    import schuss

    curvature = np.geomspace(1.0, 100.0, UNKNOWNS)
    start, grad = np.random.default_rng(0).standard_normal(UNKNOWNS), np.empty(UNKNOWNS)
    options = {
        "max_iter": ITERATIONS,
        "max_eval": 10 * ITERATIONS,
        "history_size": 10,
        "tolerance_grad": 0.0,
        "tolerance_change": 0.0,
        "line_search_fn": "strong_wolfe",
    }

    def value(x):
        np.multiply(curvature, x, out=grad)
        return 0.5 * float(grad @ x)

    def ours():
        x = start.copy()
        schuss.LBFGS(x, **options).step(lambda: (value(x), grad))
        return x

    runs = {"schuss": ours}
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(jobs.THREADS)

        def pytorch():
            x = torch.nn.Parameter(torch.from_numpy(start.copy()))
            x.grad, array = torch.from_numpy(grad), x.detach().numpy()
            torch.optim.LBFGS([x], **options).step(lambda: torch.tensor(value(array), dtype=torch.float64))
            return array

        runs["torch"] = pytorch
    if find_spec("scipy") is not None:
        from scipy.optimize import minimize

        limits = {"maxiter": ITERATIONS, "maxcor": 10, "ftol": 0.0, "gtol": 0.0}

        def scipy():
            return minimize(lambda x: (value(x), grad), start, jac=True, method="L-BFGS-B", options=limits).x

        runs["SciPy"] = scipy
    for name, run in runs.items():
        assert np.linalg.norm(curvature * run()) < 0.2 * np.linalg.norm(curvature * start), name
    taken = timing.interleave(runs, rounds, seconds=0.05, rest=timing.BLAS_REST)
    others = {name: timing.ratio(taken, name, "schuss") for name in runs if name != "schuss"}
    return {"seconds": median(taken["schuss"]) / ITERATIONS, **others}


def averages(rounds):
    """A step of AdamW in EMA, compared with the floor of its bytes and the average's."""
    from benchmarks import floor, jobs, timing

    import schuss

    job = jobs.Job("AdamW", [jobs.shape("AdamW", AVERAGED)])
    wrapped = schuss.EMA(job.optimizer)
    (own,) = job.passes()
    both_written = (*own.writes_state, jobs.leaves(wrapped.average)[0].reshape(-1))
    both = {
        "schuss": lambda: wrapped.step(job.grads),
        "floor": floor.make_floor([own._replace(writes_state=both_written)], jobs.THREADS),
        "alone": job.step,
    }
    taken = timing.interleave(both, rounds, seconds=0.04, rest=0)
    return {
        "seconds": median(taken["schuss"]),
        "floor": timing.ratio(taken, "floor", "schuss"),
        "alone": timing.ratio(taken, "schuss", "alone"),
    }


def tables(data):
    rows = []
    for piece, (name, layout, _, other, least) in STEPS.items():
        if own := data.get(piece):
            ratio = speedup(own["ratio"], other, least)
            rows.append([f"{name}, {layout}", time(own["seconds"]), f"{other} / ours", ratio, f">= {least}"])
    if own := data.get(LBFGS):
        what = f"LBFGS, an iteration over {UNKNOWNS:,} unknowns"
        for name, least in LEAST.items():
            if name in own:
                ratio = speedup(own[name], name, least)
                rows.append([what, time(own["seconds"]), f"{name} / ours", ratio, f">= {least}"])
    if own := data.get(EMA):
        ratio = bounded(own["floor"], least=0.9)
        rows.append([f"EMA(AdamW), {AVERAGED:,} elements", time(own["seconds"]), "floor / ours", ratio, ">= 0.9"])
    if not rows:
        return []
    text = (
        "Each package with its own threads, as many as ours. L-BFGS is in float64 with a history of 10 and strong "
        "Wolfe line searches, on a sum of squares; SciPy's is L-BFGS-B. The floor of EMA moves the average's bytes "
        "beside AdamW's, and reads the parameters once for both."
    )
    return [Table("Other packages' forms", text, ["what", "time", "figure", "value", "target"], rows)]


def targets(data):
    found = [
        (f"{name}, {layout}: {other} / ours", data[piece]["ratio"], ">=", least)
        for piece, (name, layout, _, other, least) in STEPS.items()
        if data.get(piece)
    ]
    if own := data.get(LBFGS):
        found += [(f"LBFGS: {name} / ours", own[name], ">=", least) for name, least in LEAST.items() if name in own]
    if own := data.get(EMA):
        found.append(("EMA(AdamW): floor / ours", own["floor"], ">=", 0.9))
    return found
