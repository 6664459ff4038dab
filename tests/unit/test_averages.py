"""Averages of weights: EMA, SWA, Polyak. Around an optimizer and beside it, against equations and PyTorch's figures."""

import copy
import gc
import json
import math
import re

import numpy as np
import pytest
from helpers import DATA, DTYPES, assert_same, assert_unchanged, compute_dtype, refused, snapshot
from ways_to_resume import each_way_to_resume, resumed

import schuss

WIDER = json.loads((DATA / "wider.json").read_text())
STEPS = 9
#: The steps that special cases were recorded at.
RECORDED = [1, 2, 3, 5, 6, 10, 11, 25]


def ema(trail, decay, warmup=False, bias_correction=False):
    """From the definition; with bias correction, a sum over all weights."""
    if bias_correction:
        weights = [decay ** (len(trail) - 1 - i) for i in range(len(trail))]
        return sum(w * p for w, p in zip(weights, trail, strict=True)) / sum(weights)
    a = trail[0]
    for n, p in enumerate(trail[1:], start=1):
        b = min(decay, (1 + n) / (10 + n)) if warmup else decay
        a = b * a + (1 - b) * p
    return a


def polynomial(trail, gamma):
    a = 0.0 * trail[0]
    for t, p in enumerate(trail, start=1):
        share = (1 + gamma) / (t + gamma)
        a = (1 - share) * a + share * p
    return a


# A class, its options, and the average of the parameters after each step.
FORMS = {
    "EMA": (schuss.EMA, dict(decay=0.75), lambda trail: ema(trail, 0.75)),
    "EMA, warmup": (schuss.EMA, dict(decay=0.5, warmup=True), lambda trail: ema(trail, 0.5, True)),
    "EMA, corrected": (schuss.EMA, dict(decay=0.9, bias_correction=True), lambda t: ema(t, 0.9, bias_correction=True)),
    "EMA, every third": (schuss.EMA, dict(decay=0.5, update_every=3), lambda trail: ema(trail[2::3], 0.5)),
    "SWA": (schuss.SWA, {}, lambda trail: np.mean(trail, 0)),
    "SWA, later": (schuss.SWA, dict(start=3, update_every=2), lambda trail: np.mean(trail[4::2], 0)),
    "Polyak": (schuss.Polyak, {}, lambda trail: np.mean(trail, 0)),
    "Polyak, weighted": (schuss.Polyak, dict(gamma=8.0), lambda trail: polynomial(trail, 8.0)),
}
each_form = pytest.mark.parametrize("form", FORMS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))


def gradients(t):
    rng = np.random.default_rng([3, t])
    return {"w": rng.standard_normal((4, 5)), "b": rng.standard_normal(7)}


def around(optimizer, form):
    cls, own, _ = FORMS[form]
    return cls(optimizer, **own)


def made(form, dtype=np.float64, kind=schuss.AdamW, **options):
    params = {"w": np.linspace(-1, 1, 20).reshape(4, 5).astype(dtype, order="F"), "b": np.ones(7, dtype)}
    return around(kind(params, lr=0.1, **options), form), params


@each_form
@pytest.mark.parametrize("beside", [False, True], ids=["around", "beside"])
@each_dtype
def test_equations(form, beside, dtype):
    """The average of what the parameters were; in the compute dtype, whatever theirs is."""
    opt, params = made(form, dtype)
    alone, _ = made(form, dtype)
    trail = []
    for t in range(STEPS):
        alone.optimizer.step(gradients(t))
        if beside:
            opt.optimizer.step(gradients(t))
            if opt._is_due(t + 1):
                opt.update()
        else:
            opt.step(gradients(t))
        trail.append({key: p.astype(np.float64) for key, p in params.items()})
    assert_same(list(params.values()), alone._params[::-1], "the optimizer's own steps are not changed")
    for key, average in opt.average.items():
        assert average.dtype == compute_dtype(params[key].dtype)
        want = FORMS[form][2]([p[key] for p in trail])
        np.testing.assert_allclose(
            average, want, rtol=1e-13 if dtype == np.float64 else 1e-6, atol=1e-7 * (dtype != np.float64)
        )


@pytest.mark.parametrize("name", ["EMA", "SWA", "Polyak"])
def test_torch(name):
    """PyTorch's AveragedModel: the parameters at update t are given by a formula."""
    (case,) = [c for c in WIDER["special"] if c["optimizer"] == name.replace("Polyak", "SWA")]
    starts = [
        np.reshape([math.cos(1.3 * (i + 1) + k) * 2.0 for i in range(math.prod(s))], s)
        for k, s in enumerate(case["shapes"])
    ]
    params = [p.copy() for p in starts]
    opt = getattr(schuss, name)(schuss.SGD(params, lr=0.0), **case["kwargs"])
    recorded = dict(zip(RECORDED, case["params"], strict=True))
    for t in range(1, 26):
        for k, (p, start) in enumerate(zip(params, starts, strict=True)):
            flat = [math.sin(0.05 * t * (1 + i % 3) + 0.8 * i * i + k) + 0.1 * x for i, x in enumerate(start.ravel())]
            p[...] = np.reshape(flat, p.shape)
        opt.update()
        for own, want, start in zip(opt.average, recorded.get(t, []), starts, strict=False):
            far, off = np.max(np.abs(want - start.ravel())), np.max(np.abs(own.ravel() - want))
            assert off <= max(10 * case["spec_error"], 1e-9) * far, f"update {t}"
    assert opt.updates == 25


@each_form
@each_way_to_resume
def test_resume(form, how, tmp_path):
    opt, params = made(form, np.float32)
    for t in range(5):
        opt.step(gradients(t))
    other = resumed(opt, how, lambda: around(schuss.AdamW(copy.deepcopy(params), lr=0.1), form), tmp_path / "file")
    assert other.updates == opt.updates and list(other.state_dict()["state"][0])[-1] == "average"
    for one in (opt, other):
        for t in range(5, STEPS):
            one.step(gradients(t))
    assert_unchanged(other, snapshot(opt))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (schuss.AdamW, dict(state_dtype="int8")),
        (schuss.AdamW, dict(state_dtype="bfloat16", master_weights=True)),
        (schuss.Prodigy, {}),
        (schuss.Adafactor, {}),
        (lambda params, **kw: schuss.Lookahead(schuss.SGD(params, momentum=0.9, **kw), k=2), {}),
        (lambda params, **kw: schuss.Transformed(schuss.Lion(params, **kw), []), {}),
    ],
    ids=["int8", "master weights", "Prodigy", "Adafactor", "Lookahead", "Transformed"],
)
def test_around_anything(kind, options):
    """Small states, master weights, other wrappers: averaged is what a step updates."""
    master = options.get("master_weights", False)
    opt, params = made("SWA", np.float16 if master else np.float32, kind, **options)
    trail = []
    for t in range(4):
        opt.step(gradients(t))
        kept = opt._optimizer.state_dict()["state"][0]["master"] if master else params
        trail.append({key: p.copy() for key, p in kept.items()})
    for key, average in opt.average.items():
        np.testing.assert_allclose(average, np.mean([p[key] for p in trail], 0), rtol=1e-5, atol=1e-6)
    with opt.swap():
        for key, p in params.items():
            assert p.tobytes("A") == opt.average[key].astype(p.dtype).tobytes("A")


def test_master_copies_beside_wider_parameters():
    """Averaged are the copies of parameters of 16 bits, and other parameters as they are."""
    start = [np.linspace(-1, 1, 40).astype(np.float16), np.linspace(2, 3, 7).astype(np.float32)]
    mixed, wide = [p.copy() for p in start], [p.astype(np.float32) for p in start]
    opt, twin = schuss.EMA(schuss.AdamW(mixed, master_weights=True), 0.5), schuss.EMA(schuss.AdamW(wide), 0.5)
    for t in range(3):
        grads = [np.full(p.shape, 0.1 + t, np.float32) for p in start]
        opt.step(grads)
        twin.step(grads)
    assert_same(opt.average, twin.average)
    assert_same(mixed, [wide[0].astype(np.float16), wide[1]])


@pytest.mark.parametrize("decay", [0.0, 0.05, 0.5, 0.9, 0.999])
def test_warmup_with_bias_correction(decay):
    """From zero, divided by one minus the product of all decays."""
    w = np.zeros(1)
    opt, average, product = schuss.EMA(schuss.SGD(w, lr=1.0), decay, warmup=True, bias_correction=True), 0.0, 1.0
    for n in range(100):
        opt.step(np.array([math.sin(n)]))
        beta = min(decay, (1 + n) / (10 + n))
        average, product = beta * average + (1 - beta) * w[0], product * beta
        np.testing.assert_allclose(opt.average, average / (1 - product), rtol=1e-12, atol=1e-12)


def test_swap():
    opt, params = made("SWA")
    for t in range(3):
        opt.step(gradients(t))
    before, averages = snapshot(opt), copy.deepcopy(opt.average)
    with opt.swap():
        assert_same(list(params.values()), list(averages.values()))
        for call in (lambda: opt.step(gradients(3)), opt.update, lambda: opt.swap().__enter__()):
            with pytest.raises(RuntimeError, match=r"^the parameters are at the average; leave swap\(\) first$"):
                call()
    assert_unchanged(opt, before)
    with pytest.raises(ZeroDivisionError), opt.swap():
        params["w"] += 1 / 0
    assert_unchanged(opt, before)


def test_a_swap_that_nobody_holds():
    """The garbage collector restores the parameters, also if it comes while the optimizer is read."""
    w = np.ones(1)
    opt = schuss.SWA(inner := schuss.SGD(w, lr=0.5))
    for _ in range(2):
        opt.step(np.ones(1))
    before, thresholds = w.copy(), gc.get_threshold()
    gc.collect()
    gc.disable()
    try:
        cycle = [opt.swap()]
        cycle[0].__enter__()
        cycle.append(cycle)
        assert w != before
        del cycle
        _used = [[] for _ in range(300)]  # all lists that Python keeps for reuse
        gc.set_threshold(1)
        gc.enable()
        inner._counters  # noqa: B018  # the next list, which brings the collector, is made in here
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
    gc.collect()
    assert w == before
    opt.step(np.ones(1))


def test_groups_settings_and_skipped_steps():
    opt = schuss.EMA(schuss.SGD([{"params": [np.ones(2)]}], lr=0.5, nonfinite="skip"), decay=0.5)
    assert not opt.step([[np.array([np.nan, 1.0])]]) and opt.updates == 0, "a skipped step does not count"
    opt.step([[np.ones(2)]])
    opt.add_param_group({"params": [np.full(2, 8.0)]})
    opt.decay = 0.75
    opt.step([[np.ones(2)], [np.zeros(2)]])
    assert opt.decay == 0.75 and opt.updates == 2
    assert [a.tolist() for group in opt.average for a in group] == [[0.375, 0.375], [8.0, 8.0]]
    with refused(ValueError, "decay must be a number >= 0 and < 1, got 1.0"):
        opt.decay = 1.0
    assert repr(opt).startswith(
        "EMA(decay=0.75, warmup=False, bias_correction=False, update_every=1, updates=2, decayed=0.375) around SGD"
    )


@pytest.mark.parametrize(("wrap", "shown"), [(schuss.EMA, "swap"), (schuss.Lookahead, "evaluate")])
def test_a_context_that_was_made_before_a_group_was_added(wrap, shown):
    """It would leave the new group's parameters as they are."""
    opt = wrap(schuss.SGD(np.ones(3), lr=0.5))
    context = getattr(opt, shown)()
    opt.add_param_group({"params": np.ones(2)})
    with refused(ValueError, "a group was added after this context was made; make a new one"):
        context.__enter__()
    with getattr(opt, shown)():
        pass


def test_a_failed_step_averages_nothing():
    opt, _ = made("EMA")
    opt.step(gradients(0))
    before = snapshot(opt)
    with pytest.raises(ValueError, match=re.escape("grads['b']")):
        opt.step({**gradients(1), "b": np.ones(3)})
    assert_unchanged(opt, before)
    assert opt.updates == 1


def test_wrong_calls():
    sgd = schuss.SGD(np.ones(2))
    for cls in (schuss.EMA, schuss.SWA, schuss.Polyak):
        with refused(TypeError, f"{cls.__name__} wraps an optimizer, got ndarray of shape (2,)"):
            cls(np.ones(2))
        with refused(TypeError, "ScheduleFreeSGD averages its parameters itself; use its eval()"):
            cls(schuss.ScheduleFreeSGD(np.ones(2)))
    with refused(ValueError, "update_every must be a whole number >= 1, got 0"):
        schuss.EMA(sgd, update_every=0)
    with refused(ValueError, "start must be a whole number >= 0, got -1"):
        schuss.SWA(sgd, start=-1)
    with refused(ValueError, "gamma must be a number >= 0, got -1"):
        schuss.Polyak(sgd, gamma=-1)
    other = schuss.SWA(schuss.SGD(np.ones(2)))
    with refused(ValueError, "this is the state of 'EMA(SGD)', but the optimizer is 'SWA(SGD)'"):
        other.load_state_dict(schuss.EMA(sgd).state_dict())
    with refused(ValueError, f"state['updates'] must be a whole number >= 0 and < 2**63, got {10**400}"):
        other.load_state_dict(other.state_dict() | {"updates": 10**400})


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_bits(threads):
    """An element's average depends on nothing but the element, for any number of threads."""
    before = schuss.get_num_threads()
    n = 300_001
    start, g = np.linspace(-1, 1, n, dtype=np.float32), np.sin(np.arange(n, dtype=np.float32))
    try:
        schuss.set_num_threads(threads)
        opt = schuss.EMA(schuss.SGD(start.copy(), lr=0.1), decay=0.9)
        for _ in range(3):
            opt.step(g)
    finally:
        schuss.set_num_threads(before)
    small = schuss.EMA(schuss.SGD(start[12_345:12_400].copy(), lr=0.1), decay=0.9)
    for _ in range(3):
        small.step(g[12_345:12_400].copy())
    assert_same([opt.average[12_345:12_400].copy()], [small.average])


@pytest.mark.parametrize("wrap", ["EMA", "SWA of Lookahead"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (schuss.SGD, dict(momentum=0.9)),
        (schuss.AdamW, dict(state_dtype="int8", state_seed=3)),
        (schuss.AdamW, dict(master_weights=True)),
        (schuss.AdamW, dict(max_grad_norm=1.0)),
        (schuss.LAMB, {}),
        (schuss.LAMB, dict(packed=True)),
        (schuss.Prodigy, {}),
        (schuss.Adafactor, {}),
        (schuss.NovoGrad, dict(state_dtype="bfloat16", state_seed=3)),
    ],
    ids=["momentum", "int8", "master weights", "clipped", "two passes", "packed", "two rounds", "rows", "bfloat16"],
)
def test_within_the_step_as_after_it(kind, options, wrap):
    """What follows a step in its tasks has the bits of a pass of its own, also for arrays without a gradient."""
    rng, options = np.random.default_rng(0), dict(options)
    dtype = np.float16 if "master_weights" in options else np.float32
    lengths = [3, 4096, 0, 4100, 70_001]
    start = [rng.standard_normal(n).astype(dtype) for n in lengths]
    within, after = ([p.copy() for p in start] for _ in range(2))
    if options.pop("packed", False):
        within = schuss.pack(within)
    outer, inner = (schuss.SWA, lambda o: schuss.Lookahead(o, k=2)) if "SWA" in wrap else (schuss.EMA, lambda o: o)
    a = outer(inner(kind(within, lr=0.01, **options)))
    stepped = inner(kind(after, lr=0.01, **options))
    b = outer(stepped)
    for t in range(6):
        grads = [rng.standard_normal(n).astype(np.float32) for n in lengths]
        if t < 4:
            grads[t] = None
        a.step(grads, partial=True)
        stepped.step(grads, partial=True)
        b.update()
        assert_same([*within, *a.average], [*after, *b.average])
    assert_unchanged(b, snapshot(a))


@pytest.mark.parametrize("warmup", [False, True])
def test_a_decay_that_changes_with_bias_correction(warmup, tmp_path):
    """The sum over all weights, also after a checkpoint, and after one of a version that did not save their product."""
    w = np.ones(3)
    opt = schuss.EMA(schuss.SGD(w, lr=0.1), decay=0.9, bias_correction=True, warmup=warmup)
    a, product, before = np.zeros(3), 1.0, None
    for n, decay in enumerate([0.9] * 4 + [0.5] * 3 + [0.99] * 5):
        if n == 4:
            before = copy.deepcopy(opt.state_dict())
        opt.decay = decay
        opt.step(np.array([-1.0, 0.5, np.sin(n)]))
        own = min(decay, (1 + n) / (10 + n)) if warmup else decay
        a, product = own * a + (1 - own) * w, product * own
        np.testing.assert_allclose(opt.average, a / (1 - product), rtol=1e-12)
        if n == 7:
            schuss.save(tmp_path / "file", opt)
            opt = schuss.EMA(schuss.SGD(w, lr=0.1), bias_correction=True)
            schuss.load(tmp_path / "file", opt)
    older = {name: value for name, value in before.items() if name != "decayed"}
    one, other = (schuss.EMA(schuss.SGD(np.ones(3), lr=0.1), bias_correction=True) for _ in range(2))
    one.load_state_dict(before)
    other.load_state_dict(older)
    for each in (one, other):
        each.step(np.ones(3))
    np.testing.assert_allclose(one.average, other.average, rtol=1e-12)


def test_what_is_shown_by_which_wrapper():
    w = np.ones(2)
    inner = schuss.Lookahead(schuss.SGD(w, lr=0.1))
    outer = schuss.EMA(inner)
    outer.step(w.copy())
    with outer.swap(), refused(RuntimeError, "the parameters are at the average; leave swap() first"):
        inner.step(w)
    with inner.evaluate(), refused(RuntimeError, "the parameters are at the slow weights; leave evaluate() first"):
        inner.step(w)
    beside = schuss.SWA(base := schuss.SGD(w, lr=0.1))
    message = (
        "this optimizer is in the middle of a step, or of being saved or loaded (in another thread, or around this "
        "call), or its parameters have other values inside swap() or evaluate(); use it from one place at a time"
    )
    with beside.swap(), refused(RuntimeError, message):
        base.step(w)
