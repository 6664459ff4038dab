"""Random structures, shapes, strides, thread counts and interruptions give the bits of one array at a time."""

import numpy as np
from cases import CASES
from helpers import (
    DTYPES,
    F32,
    arrays,
    assert_same,
    build,
    cast,
    depends_on_position,
    each_dtype,
    is_newton,
    leaves,
    parameters,
    spans_arrays,
    states,
    sums,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import schuss

# Without cases in which an array's result depends on the other arrays.
cases = st.sampled_from([c for c in CASES if not (spans_arrays(c) or is_newton(c) or depends_on_position(c))])
shapes = st.lists(st.integers(0, 9), max_size=4).map(tuple)
seeds = st.integers(0, 2**32 - 1)
keys = st.sampled_from(["w", "b", "layer 1", "", "ключ", "a.b", "0"])


def containers(inner):
    lists = st.lists(inner, min_size=1, max_size=4)
    return lists | lists.map(tuple) | st.dictionaries(keys, inner, min_size=1, max_size=4)


structures = st.recursive(shapes.map(lambda s: np.empty(s, F32)), containers, max_leaves=8)


def examples(n):
    return settings(deadline=None, max_examples=n, derandomize=True)


def rebuilt(structure, make):
    """The same structure with make(leaf) for every leaf."""
    if isinstance(structure, np.ndarray):
        return make(structure)
    if isinstance(structure, dict):
        return {k: rebuilt(v, make) for k, v in structure.items()}
    return type(structure)(rebuilt(v, make) for v in structure)


def filled(structure, seed, dtype=F32):
    rng = np.random.default_rng(seed)
    return rebuilt(structure, lambda a: cast(rng.standard_normal(a.shape), dtype))


def by_name(opts):
    """Parameters, then the states sorted by name, of several optimizers as if they were one."""
    named = [(key[1], a) for opt in opts for key, a in states(opt).items()]
    return [p for opt in opts for p in parameters(opt)] + [a for _, a in sorted(named, key=lambda item: item[0])]


def one_at_a_time(case, params, grads_by_step):
    """One optimizer for each array."""
    opts = [build(case, p) for p in params]
    for grads in grads_by_step:
        for opt, g in zip(opts, grads, strict=True):
            opt.step(g)
    return opts


@given(cases, structures, seeds, st.sampled_from(list(DTYPES.values())), st.integers(1, 4))
@examples(150)
def test_structures(case, structure, seed, dtype, threads):
    schuss.set_num_threads(threads)
    params, alone = filled(structure, seed, dtype), leaves(filled(structure, seed, dtype))
    grads = [filled(structure, [seed, t], dtype) for t in (1, 2, 3)]
    opt = build(case, params)
    for g in grads:
        opt.step(g)
    assert_same(by_name([opt]), by_name(one_at_a_time(case, alone, [leaves(g) for g in grads])))


@st.composite
def strided(draw):
    """A function that makes a view of a larger array: permuted axes, each with a step that may be negative."""
    shape = draw(st.lists(st.integers(0, 7), max_size=4).map(tuple))
    axes = draw(st.permutations(range(len(shape))))
    cuts = [(draw(st.sampled_from([1, 2, 3, -1, -2])), draw(st.integers(0, 2))) for _ in shape]

    def make(rng, dtype):
        """The view, filled with random numbers."""
        base = np.zeros([shape[k] * 3 + 3 for k in axes], dtype).transpose(np.argsort(axes))
        for k, (step, offset) in enumerate(cuts):
            index = [slice(None)] * len(shape)
            index[k] = slice(offset, None, abs(step))
            base = base[tuple(index)]
            index[k] = slice(0, shape[k])
            base = base[tuple(index)]
            index[k] = slice(None, None, 1 if step > 0 else -1)
            base = base[tuple(index)]
        assert base.shape == shape
        base[...] = cast(rng.standard_normal(shape), dtype)
        return base

    return make


@given(cases, st.lists(strided(), min_size=1, max_size=4), seeds, st.booleans(), st.sampled_from(list(DTYPES.values())))
@examples(150)
def test_strides(case, recipes, seed, fortran, dtype):
    rng = np.random.default_rng(seed)
    grads = [[make(rng, dtype) for make in recipes] for _ in range(3)]
    params = [cast(rng.standard_normal(g.shape), F32) for g in grads[0]]
    alone = [p.copy() for p in params]
    if fortran and not sums(case):
        params = [np.asarray(p, order="F") for p in params]
    opt = build(case, params)
    for t, g in enumerate(grads):
        zero = t == 2
        copies = [a.copy() for a in g]
        opt.step(g, zero_grads=zero)
        assert_same(g, [np.zeros_like(a) for a in g] if zero else copies, "gradients")
        grads[t] = copies
    assert_same(by_name([opt]), by_name(one_at_a_time(case, alone, grads)))


edges = st.sampled_from([n + d for n in (16384, 32768, 131072) for d in (-1, 0, 1)])


@given(cases, st.lists(edges | st.integers(0, 40), min_size=1, max_size=5), seeds, st.integers(1, 4))
@examples(60)
def test_chunk_edges(case, sizes, seed, threads):
    """Sizes around those at which work is divided, with any number of threads, against one thread and one array."""
    data = np.random.default_rng(seed).standard_normal(3 * 140_000).astype(F32)
    params = [data[k : k + n].copy() for k, n in enumerate(sizes)]
    alone = [p.copy() for p in params]
    grads = [[data[t * 100_000 + 7 * k :][:n] for k, n in enumerate(sizes)] for t in (1, 2)]
    schuss.set_num_threads(threads)
    opt = build(case, params)
    for g in grads:
        opt.step(g)
    schuss.set_num_threads(1)
    assert_same(by_name([opt]), by_name(one_at_a_time(case, alone, grads)), f"{threads} threads")


@given(st.sampled_from([c for c in CASES if not is_newton(c)]), structures, seeds, st.integers(0, 8))
@examples(100)
def test_resume_anywhere(case, structure, seed, stop):
    straight = build(case, filled(structure, seed))
    stopped = build(case, filled(structure, seed))
    for t in range(8):
        if t == stop:
            state, params = stopped.state_dict(), iter([p.copy() for p in parameters(stopped)])
            stopped = build(case, rebuilt(structure, lambda _: next(params)))  # noqa: B023
            stopped.load_state_dict(state)
        for opt in (straight, stopped):
            opt.step(filled(structure, [seed, t]))
    assert_same(arrays(stopped), arrays(straight))
    assert stopped.step_count == 8


@each_dtype
@given(sizes=st.lists(edges | st.integers(0, 40), min_size=1, max_size=5), seed=seeds)
@examples(8)
def test_norm_does_not_depend_on_threads(dtype, sizes, seed):
    """Partial sums are combined in index order, whichever thread computed them."""
    data = cast(np.random.default_rng(seed).standard_normal(140_000), dtype)
    results = []
    for threads in (1, 2, 3, 4):
        schuss.set_num_threads(threads)
        params = [data[:n].copy() for n in sizes]
        opt = schuss.AdamW(params, max_grad_norm=1e-3)
        opt.step([data[-n - 5 :][:n] for n in sizes])
        results.append((opt.grad_norm, params))
    for norm, params in results[1:]:
        assert norm == results[0][0]
        assert_same(params, results[0][1])
