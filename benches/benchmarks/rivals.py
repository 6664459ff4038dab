"""The yardsticks: the same AdamW step as others would write or call it, each as well as its makers allow.

``RIVALS`` maps a name to a factory: ``factory(shapes, dtype, threads)`` returns ``(step, params)``, a callable without
arguments and the arrays that it changes. The first step has been taken: kernels are compiled, state exists. A rival
that is not installed is left out, and ``MISSING`` says which and why. Everybody starts from the same numbers, so
whoever has taken the same number of steps has the same parameters (``speed.py`` looks).
"""

import functools
import importlib.util

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


def torch_step(shapes, dtype=np.float32, threads=1, name="AdamW", **options):
    """torch.optim on CPU tensors that share memory with NumPy. ``fused=True`` is the fastest that torch has."""
    import torch

    torch.set_num_threads(threads)
    arrays = random_arrays(shapes, dtype)
    params = [torch.nn.Parameter(torch.from_numpy(p)) for p in arrays]
    for p, g in zip(params, random_arrays(shapes, dtype, 1)):
        p.grad = torch.from_numpy(g)
    if name == "AdamW":
        options = {"betas": (BETA1, BETA2), "eps": EPS, "weight_decay": WEIGHT_DECAY, **options}
    step = getattr(torch.optim, name)(params, lr=LR, fused=True, **options).step
    step()
    return step, arrays


_ALL = {
    "torch fused": ("torch", torch_step),
    "numba": ("numba", numba_step),
    "numba parallel": ("numba", functools.partial(numba_step, parallel=True)),
    "numba parallel fastmath": ("numba", functools.partial(numba_step, parallel=True, fastmath=True)),
    "NumPy": ("numpy", numpy_expression),
}
RIVALS = {name: factory for name, (module, factory) in _ALL.items() if importlib.util.find_spec(module)}
MISSING = {name: f"{module} is not installed" for name, (module, _) in _ALL.items() if name not in RIVALS}
