"""Other implementations of the same AdamW step, each called in the fastest way that it offers.

``RIVALS`` maps a name to a factory: ``factory(shapes, dtype, threads)`` returns ``(step, params)``, a callable without
arguments and the arrays that it changes, or a function that returns them. The first step has been taken: kernels are
compiled, state exists. A library that is not installed is left out, and ``MISSING`` says which and why. All start from
the same values, so after the same number of steps they have the same parameters (``speed.py`` checks).
"""

import functools
import importlib.util
import logging
import os
import sys
from pathlib import Path

import numpy as np

LR, BETA1, BETA2, EPS, WEIGHT_DECAY = 1e-3, 0.9, 0.999, 1e-8, 1e-2


def random_arrays(shapes, dtype=np.float32, seed=0):
    """One random array a shape. Long ones repeat a block: drawing 32 M normal numbers takes longer than measuring."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    longest = min(1 << 20, max(sizes))
    block = np.random.default_rng(seed).standard_normal(longest, dtype=np.float32).astype(dtype)
    flat = [np.resize(block, n) if n > block.size else block[:n].copy() for n in sizes]
    return [a.reshape(shape) for a, shape in zip(flat, shapes)]


def numpy_expression(shapes, dtype=np.float32, threads=1):
    """The update as a page of a textbook has it, in place where NumPy's operators are."""
    params, grads = random_arrays(shapes, dtype), random_arrays(shapes, dtype, 1)
    state = [(np.zeros_like(p), np.zeros_like(p)) for p in params]
    t = 0

    def step(lr=LR):
        nonlocal t
        t += 1
        step_size, bias2 = lr / (1 - BETA1**t), 1 - BETA2**t
        for p, g, (m, v) in zip(params, grads, state):
            m *= BETA1
            m += (1 - BETA1) * g
            v *= BETA2
            v += (1 - BETA2) * g * g
            p *= 1 - lr * WEIGHT_DECAY
            p -= step_size * m / (np.sqrt(v / bias2) + EPS)

    step()
    return step, params


@functools.cache
def numba_kernel(parallel, fastmath):
    """One loop over flat arrays, compiled by numba. The constants are frozen into it, which spares it their unpacking.

    Without fastmath it is exact and vectorized; ``error_model="numpy"`` drops the checks for division by zero, which
    would keep it scalar.
    """
    import numba

    loop = numba.prange if parallel else range

    @numba.njit(parallel=parallel, fastmath=fastmath, error_model="numpy")
    def adamw(p, g, m, v, t, lr):
        one = p.dtype.type(1.0)
        c1, c2, eps = p.dtype.type(1.0 - BETA1), p.dtype.type(1.0 - BETA2), p.dtype.type(EPS)
        beta2 = p.dtype.type(BETA2)
        decay = p.dtype.type(1.0 - lr * WEIGHT_DECAY)
        step_size = p.dtype.type(lr / (1.0 - BETA1**t))
        inv = one / p.dtype.type(np.sqrt(1.0 - BETA2**t))
        for i in loop(p.size):
            gi = g[i]
            mi = m[i] + (gi - m[i]) * c1
            vi = v[i] * beta2 + c2 * gi * gi
            m[i] = mi
            v[i] = vi
            p[i] = p[i] * decay - step_size * (mi / (np.sqrt(vi) * inv + eps))

    return adamw


def numba_step(shapes, dtype=np.float32, threads=1, *, parallel=False, fastmath=False):
    import numba

    kernel = numba_kernel(parallel, fastmath)
    params, grads = random_arrays(shapes, dtype), random_arrays(shapes, dtype, 1)
    work = [(p.ravel(), g.ravel(), np.zeros(p.size, dtype), np.zeros(p.size, dtype)) for p, g in zip(params, grads)]
    t = 0
    if parallel:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    if len(work) == 1:
        p, g, m, v = work[0]

        def step(lr=LR):  # without the loop over one array, which a person with one array would not write
            nonlocal t
            t += 1
            kernel(p, g, m, v, t, lr)

    else:

        def step(lr=LR):
            nonlocal t
            t += 1
            for p, g, m, v in work:
                kernel(p, g, m, v, t, lr)

    step()
    return step, params


def torch_model(shapes, dtype=np.float32, threads=1):
    """torch parameters with gradients, on memory of NumPy arrays; and the arrays."""
    import torch

    torch.set_num_threads(threads)
    arrays = random_arrays(shapes, dtype)
    params = [torch.nn.Parameter(torch.from_numpy(p)) for p in arrays]
    for p, g in zip(params, random_arrays(shapes, dtype, 1)):
        p.grad = torch.from_numpy(g)
    return params, arrays


def torch_step(shapes, dtype=np.float32, threads=1, name="AdamW", **options):
    """torch.optim on CPU tensors. ``fused=True`` is the fastest that torch has; its own default is a plain loop."""
    import torch

    params, arrays = torch_model(shapes, dtype, threads)
    if name == "AdamW":
        options = {"betas": (BETA1, BETA2), "eps": EPS, "weight_decay": WEIGHT_DECAY, **options}
    options = options if "foreach" in options else {"fused": True, **options}
    step = getattr(torch.optim, name)(params, lr=LR, **options).step
    step()
    return step, arrays


def deepspeed_step(shapes, dtype=np.float32, threads=1):
    """DeepSpeed's CPUAdam, compiled for this machine by DeepSpeed at its first use."""
    os.environ.setdefault("CUDA_HOME", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # its ninja
    logging.disable(logging.WARNING)
    try:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        params, arrays = torch_model(shapes, dtype, threads)
        options = {"betas": (BETA1, BETA2), "eps": EPS, "weight_decay": WEIGHT_DECAY, "adamw_mode": True}
        step = DeepSpeedCPUAdam(params, lr=LR, **options).step
    finally:
        logging.disable(logging.NOTSET)
    step()
    return step, arrays


def optax_step(shapes, dtype=np.float32, threads=1):
    """optax.adamw with its parameters and state given away to the compiled step, so that XLA may update in place.

    XLA takes the threads that it finds; ``threads`` is not passed on.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import optax

    rule = optax.adamw(LR, b1=BETA1, b2=BETA2, eps=EPS, weight_decay=WEIGHT_DECAY)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, state, grads):
        changes, state = rule.update(grads, state, params)
        return optax.apply_updates(params, changes), state

    params = [jax.numpy.array(p) for p in random_arrays(shapes, dtype)]
    grads = [jax.numpy.array(g) for g in random_arrays(shapes, dtype, 1)]
    state = rule.init(params)

    def step():
        nonlocal params, state
        params, state = update(params, state, grads)
        jax.block_until_ready(params)

    step()
    return step, lambda: [np.asarray(p) for p in params]


_ALL = {
    "torch fused": (["torch"], torch_step),
    "torch foreach": (["torch"], functools.partial(torch_step, foreach=True)),
    "numba": (["numba"], numba_step),
    "numba parallel": (["numba"], functools.partial(numba_step, parallel=True)),
    "numba parallel fastmath": (["numba"], functools.partial(numba_step, parallel=True, fastmath=True)),
    "DeepSpeed CPUAdam": (["torch", "deepspeed", "ninja"], deepspeed_step),
    "optax": (["jax", "optax"], optax_step),
    "NumPy": (["numpy"], numpy_expression),
}


def _lacking(modules):
    return [module for module in modules if importlib.util.find_spec(module) is None]


RIVALS = {name: factory for name, (modules, factory) in _ALL.items() if not _lacking(modules)}
MISSING = {
    name: f"{' and '.join(_lacking(modules))} not installed"
    for name, (modules, _) in _ALL.items()
    if name not in RIVALS
}
