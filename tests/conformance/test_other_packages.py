"""The equations of `families` and our optimizers follow the recorded trajectories of other packages.

The inputs are the formulas of data/make_wider.py; data/README.md says what is recorded. A new optimizer or option needs
nothing here: the record already has its cases.
"""

import inspect
import json
import math

import numpy as np
import pytest
from helpers import DATA
from reference import Reference

import schuss

#: What a package may be off where nothing moves, which is a silent step of schedule-free RAdam.
ROUNDING = 1e-13
WIDER = json.loads((DATA / "wider.json").read_text())


def waves(t, k, i, p):
    return math.sin(0.7 * t * (i + 1) + k) * 10.0 ** ((i % 5) - 2)


def bowl(t, k, i, p):
    return 10.0 ** ((i % 3) - 1) * (p - math.sin(0.9 * (i + 1) + k))


def mild(t, k, i, p):
    return math.sin(0.05 * t * (1 + i % 3) + 0.8 * i * i + k) + 0.1 * p


PROBLEMS = {"waves": waves, "bowl": bowl, "mild": mild}


def is_ours(case):
    """Whether there are this optimizer and these options."""
    kind = schuss.OPTIMIZERS.get(case["optimizer"])
    return kind is not None and set(case["kwargs"]) <= set(inspect.signature(kind).parameters)


def shapes_of(case):
    return case.get("shapes", WIDER["shapes"])


def starts(case):
    made = ([math.cos(1.3 * (i + 1) + k) * 2.0 for i in range(math.prod(s))] for k, s in enumerate(shapes_of(case)))
    return [np.reshape(values, shape) for values, shape in zip(made, shapes_of(case), strict=True)]


def gradients(problem, t, params):
    made = ([PROBLEMS[problem](t, k, i, x) for i, x in enumerate(p.ravel().tolist())] for k, p in enumerate(params))
    return [np.reshape(values, p.shape) for values, p in zip(made, params, strict=True)]


def options(case):
    values = {k: math.inf if v == "inf" else v for k, v in case["kwargs"].items()}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def assert_follows(case, opt, params):
    """Compares the parameters at each recorded step, relative to the distance from the start.

    The tolerance is ten times the error that the equations had when they were recorded. `params` returns the current
    parameters.
    """
    recorded = dict(zip(WIDER["steps"], case["params"], strict=True))
    for t in range(1, WIDER["steps"][-1] + 1):
        if "hessian" in case and t % 3 == 1:
            opt.update_hessian([abs(g) + 0.1 for g in gradients(case["problem"], t, params())])
        opt.step(gradients(case["problem"], t, params()))
        if t in recorded:
            want = [np.reshape(values, shape) for values, shape in zip(recorded[t], shapes_of(case), strict=True)]
            far = max(np.max(abs(a - b)) for a, b in zip(want, starts(case), strict=True))
            off = max(np.max(abs(a - b)) for a, b in zip(want, params(), strict=True))
            assert off <= max(10 * case["spec_error"], 1e-9) * far + ROUNDING, f"step {t}"
    assert far > 0


each_record = pytest.mark.parametrize(
    "case",
    [case for case in WIDER["cases"] if is_ours(case)],
    ids=lambda c: f"{c['optimizer']} {c['kwargs']} {c['problem']} of {' and '.join(c['peers'])}",
)


@each_record
def test_the_equations(case):
    reference = Reference(case["optimizer"], starts(case), **options(case))
    assert_follows(case, reference, lambda: reference.params)


@each_record
def test_schuss(case):
    params = starts(case)
    opt = getattr(schuss, case["optimizer"])(params, **options(case))
    assert_follows(case, opt, lambda: params)


@pytest.mark.parametrize(
    "case",
    [case for case in WIDER["cases"] if is_ours(case) and "eval_params" in case],
    ids=lambda c: f"{c['optimizer']} {c['kwargs']} {c['problem']} of {' and '.join(c['peers'])}",
)
def test_averages(case):
    """In eval mode, the averages of schedule-free optimizers."""
    params = starts(case)
    opt = getattr(schuss, case["optimizer"])(params, **options(case))
    recorded = dict(zip(WIDER["steps"], case["eval_params"], strict=True))
    for t in range(1, WIDER["steps"][-1] + 1):
        opt.step(gradients(case["problem"], t, params))
        if t in recorded:
            opt.eval()
            want = [np.reshape(values, shape) for values, shape in zip(recorded[t], shapes_of(case), strict=True)]
            far = max(np.max(abs(a - b)) for a, b in zip(want, starts(case), strict=True))
            off = max(np.max(abs(a - b)) for a, b in zip(want, params, strict=True))
            assert off <= max(10 * case["spec_error"], 1e-9) * far + ROUNDING, f"step {t}"
            opt.train()
