"""The same AdamW step in other libraries, each called in the fastest way that it offers.

``LIBRARIES`` maps a name to a factory: ``factory(shapes, dtype, threads)`` returns ``(step, params)``, a callable
without arguments and the arrays that it changes, or a function that returns them. The factory has taken the first step,
so kernels are compiled and state exists. ``MISSING`` has the libraries that are not installed. All start from the same
values, so that their parameters can be compared.
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
    """One random array per shape. Long ones repeat a block: drawing 32 M normal values takes longer than measuring."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    longest = min(1 << 20, max(sizes))
    block = np.random.default_rng(seed).standard_normal(longest, dtype=np.float32).astype(dtype)
    flat = [np.resize(block, n) if n > block.size else block[:n].copy() for n in sizes]
    return [a.reshape(shape) for a, shape in zip(flat, shapes)]


def numpy_expression(shapes, dtype=np.float32, threads=1):
    """The update as a textbook writes it, with in-place operators where NumPy has them."""
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
    """One loop over flat arrays, compiled by numba. Its constants are compiled in, so a call does not unpack them.

    Without fastmath it is exact and vectorized: ``error_model="numpy"`` omits the checks for division by zero, which
    would prevent vectorization.
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

        def step(lr=LR):  # as users write it for one array, without a loop
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
    """torch parameters with gradients that share memory with NumPy arrays, and these arrays."""
    import torch

    torch.set_num_threads(threads)
    arrays = random_arrays(shapes, dtype)
    params = [torch.nn.Parameter(torch.from_numpy(p)) for p in arrays]
    for p, g in zip(params, random_arrays(shapes, dtype, 1)):
        p.grad = torch.from_numpy(g)
    return params, arrays


def torch_step(shapes, dtype=np.float32, threads=1, name="AdamW", **options):
    """torch.optim on CPU tensors. ``fused=True`` is its fastest form; its default is a plain loop."""
    import torch

    params, arrays = torch_model(shapes, dtype, threads)
    if name == "AdamW":
        options = {"betas": (BETA1, BETA2), "eps": EPS, "weight_decay": WEIGHT_DECAY, **options}
    options = options if "foreach" in options else {"fused": True, **options}
    step = getattr(torch.optim, name)(params, lr=LR, **options).step
    step()
    return step, arrays


def deepspeed_step(shapes, dtype=np.float32, threads=1):
    """DeepSpeed's CPUAdam, which DeepSpeed compiles at its first use."""
    os.environ.setdefault("CUDA_HOME", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # for ninja
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
    """optax.adamw, compiled, with donated parameters and state, so that XLA may update in place.

    XLA chooses its number of threads; ``threads`` is not used.
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


LIBRARIES = {name: factory for name, (modules, factory) in _ALL.items() if not _lacking(modules)}
MISSING = {
    name: f"{' and '.join(_lacking(modules))} not installed"
    for name, (modules, _) in _ALL.items()
    if name not in LIBRARIES
}
