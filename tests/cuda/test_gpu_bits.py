"""Every case of the conformance table gives the same bits on the GPU as on the CPU.

Inputs include NaN, infinities and denormals.
"""

from itertools import groupby

import gpu
import numpy as np
import nvrtc_units
import pytest
from bits import runs, some, steps
from helpers import arrays, build, is_quantized, is_sampled, sees_nonfinite, sums

# NAG and quantized state do not run on a GPU.
RUNS = [run for run in runs() if "NAG" not in run[0].optimizer and not is_quantized(run[0])]
NAMES = {name: [(case, p, g) for case, p, g in group] for name, group in groupby(RUNS, key=lambda run: run[0].name)}


def sampled():
    """All names; those that bring neither a rule nor a set of states are in the slow set."""
    rules = set()
    for name, of_case in NAMES.items():
        case = of_case[0][0]
        rule = (case.optimizer, *build(case, np.ones((2, 2))).param_groups[0].rules)
        # All pairs of dtypes: the first case with its states.
        quick = len(of_case) > 2 or is_sampled(case) or rule not in rules
        rules.add(rule)
        yield name if quick else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", list(sampled()))
def test_bits(name):
    for case, dtype, grad_dtype in NAMES[name]:
        finite = sees_nonfinite(case) or sums(case)
        here = build(case, [p.copy("K") for p in some(0, dtype, finite)])
        there = build(case, [gpu.Array(p) for p in some(0, dtype, finite)])
        for t in steps(case):
            grads = some(t, grad_dtype, finite)
            here.step(grads)
            there.step([gpu.Array(g) for g in grads])
            assert repr(there.grad_norm) == repr(here.grad_norm)
        for got, want in zip(arrays(there), arrays(here), strict=True):
            assert np.asarray(got).tobytes() == want.tobytes(), (dtype, grad_dtype, want.shape)


# Without a case: rules of optimizers that work on the host only, and tools. test_gpu_units.py runs them by themselves.
MATRICES = ["muon", "shampoo", "shampoo_averaged", "shampoo_grafted", "soap"]
TOOLS = ["ascend", "average", "centralize", "clamp", "clip_adaptively", "clip_norm"]
TOOLS += ["clip_rms", "combine", "combine_along", "copy", "copy_finding_nan", "lookahead", "scale", "zero_nans"]


def test_every_rule_that_a_gpu_can_run_is_in_a_case():
    run = set()
    for name in NAMES:
        run.update(build(NAMES[name][0][0], [np.ones((2, 2)), np.ones(3)]).param_groups[0].rules)
    assert {rule for rule, _ in nvrtc_units.programs()} - run == {*MATRICES, *TOOLS}
