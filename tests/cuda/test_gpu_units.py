"""Every rule and tool by itself, for each pair of dtypes: all of its kernels run, and give the CPU's bits.

The list is that of all units of source, used by an optimizer over arrays on a GPU or not, so that no kernel can be left
out. Hyperparameters are any numbers. What `clip_norm` computes is in no array: test_gpu_bits.py compares it.
"""

import re

import gpu
import numpy as np
import nvrtc_units
import pytest
from helpers import DTYPES, assert_same, cast, compute_dtype

from schuss import _schuss
from schuss._arrays import checks
from schuss._arrays.layout import last_axes
from schuss._backends import cuda_arrays

SHAPES = [(0,), (1,), (33,), (5, 700), (2, 40, 65), (31, 3, 7)]


def some(seed, dtype):
    """Arrays of these shapes, the last of them in Fortran order."""
    rng = np.random.default_rng(seed)
    made = [cast(rng.standard_normal(shape) * 10.0 ** rng.uniform(-2, 1, shape), dtype) for shape in SHAPES]
    return [*made[:-1], np.asfortranarray(made[-1])]


def states_of(rule, param, matrix, seed):
    batch, rows, cols, transposed, interleaved = matrix
    sizes = {"element": param.shape, "array": (), "row": batch * rows, "col": batch * cols}
    if transposed:
        sizes |= {"row": cols, "col": interleaved * rows}
    rng = np.random.default_rng(seed)
    for state in rule["states"]:
        if state["scope"] in sizes:
            dtype = np.float64 if state["scope"] == "array" else compute_dtype(param.dtype)
            yield np.asarray(rng.uniform(0.1, 2, sizes[state["scope"]]), dtype, checks.order(param))


def run(name, program, param_dtype, grad_dtype, hyper, t):
    """Runs a program on the host and on the GPU; returns what each has then, and the GPU's gradients."""
    rule = _schuss.rule_tree(name)
    decay = 3.0 if "weight_decay" in rule["hypers"] else 0.0  # the rule's own, or L2
    values = [0.0, 0.01, 0.01, 0.1, decay, 0.0, *(hyper for _ in rule["hypers"])]
    params, grads = some(t, param_dtype), some(t + 1, grad_dtype)
    matrices = [last_axes(param) if param.ndim > 1 else (1, 1, param.size, False, 1) for param in params]
    states = [list(states_of(rule, param, matrix, t)) for param, matrix in zip(params, matrices, strict=True)]
    shared = np.array([0.5 for state in rule["states"] if state["scope"] == "all"])
    given = [
        (gpu.Array(param), [gpu.Array(state) for state in own], matrix)
        for param, own, matrix in zip(params, states, matrices, strict=True)
    ]
    on_gpu = [gpu.Array(grad) for grad in grads]
    work = _schuss.CudaWork(0)
    described = [
        (0, param.pointer, param.dtype.name, int(np.prod(param.shape)), [state.pointer for state in own], matrix)
        for param, own, matrix in given
    ]
    work.add_group([(name, len(values))], described)
    work.set_shared(shared.tolist())
    types = [grad.dtype.name for grad in on_gpu]
    work.step(
        program, [values], [t], [], [grad.pointer for grad in on_gpu], types, 1.0, None, False, False, True,
        cuda_arrays.LEGACY,
    )  # fmt: skip
    there = [array.host for param, own, _ in given for array in (param, *own)]
    there.append(np.array(work.shared()))
    _schuss.Job(name, program, [np.array(values)], t, params, grads, states, matrices, shared).run()
    here = [array for param, own in zip(params, states, strict=True) for array in (param, *own)]
    return [*here, shared], there, on_gpu


@pytest.mark.parametrize(("name", "program"), nvrtc_units.programs())
def test_every_unit(name, program):
    cuda_arrays.prepare()
    checks.known_dtype(DTYPES["bfloat16"])
    stages = _schuss.rule_tree(name)["programs"][program]
    if gpu.MODE == "emulator":
        gpu.log()
    for param, grad in (types for *unit, types in nvrtc_units.every() if unit == [name, program] and types):
        for hyper, t in ((0.5, 1), (1.0, 2)):
            here, there, grads = run(name, program, DTYPES[param], DTYPES[grad], hyper, t)
            assert_same(there, here, f"{param} {grad} {hyper}")
            assert not (any(stage.get("reads_grad") for stage in stages) and any(one.host.any() for one in grads))
        if gpu.MODE == "emulator":
            ran = {line.split()[1] for line in gpu.log() if line.startswith("launch ")}
            sources = "\n".join(nvrtc_units.sources(name, program, param, grad))
            assert ran == set(re.findall(r"^KERNEL\((\w+)\)", sources, re.MULTILINE)), (param, grad)
