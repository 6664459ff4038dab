"""Copies and pickles of optimizers: each is of one moment, keeps everything, and shares no memory."""

import copy
import pickle
from typing import NamedTuple

import numpy as np
import pytest
from helpers import (
    TYPICAL,
    arrays,
    assert_same,
    assert_unchanged,
    each_dtype,
    grads_of,
    leaves,
    parameters,
    params_of,
    sampled_cases,
    snapshot,
)
from nested import SHAPES, start, take

import schuss


def pickled(made):
    return pickle.loads(pickle.dumps(made))


each_copy = pytest.mark.parametrize("how", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])


@sampled_cases
@each_copy
def test_copies_of_optimizers(case, how):
    """A copy has its own copies of the parameters."""
    opt = start(case)
    take(opt, range(1, 5))
    other = how(opt)
    assert_unchanged(other, snapshot(opt), "just copied")
    assert not any(np.shares_memory(p, q) for p, q in zip(arrays(opt), arrays(other), strict=True))
    take(opt, range(5, 9))
    assert other.step_count == 4
    take(other, range(5, 9))
    assert_unchanged(other, snapshot(opt), "four steps later")


class Meddling:
    """A schedule that uses the optimizer while it is copied, as another thread may do."""

    def __call__(self, step):
        return 0.1

    def __deepcopy__(self, memo):
        self.use()
        return Meddling()

    def __reduce__(self):
        self.use()
        return Meddling, ()


def by_array(opt, grad):
    with opt._stepped.stepping() as update:
        update(opt._stepped._params[0], grad)


BESIDE = {
    "step": lambda opt, grad: opt.step(grad),
    "step of the inner one": lambda opt, grad: opt._stepped.step(grad),
    "rows": lambda opt, grad: opt._stepped.step_rows(([0], grad[:1])),
    "by array": by_array,
    "load": lambda opt, grad: opt.load_state_dict(opt.state_dict()),
    "another group": lambda opt, grad: opt.add_param_group({"params": np.ones(2)}),
    "sync": lambda opt, grad: opt.sync(),
    "swap": lambda opt, grad: opt.swap().__enter__(),
}
AROUND = {
    "Adam": lambda opt: opt,
    "Lookahead": schuss.Lookahead,
    "EMA": schuss.EMA,
    "accumulate": lambda opt: schuss.Transformed(opt, [schuss.transforms.accumulate(2)]),
}
# Methods that only these have.
OWN = {"sync": ["Lookahead"], "swap": ["EMA"]}


@pytest.mark.parametrize(("kind", "beside"), [(kind, beside) for beside in BESIDE for kind in OWN.get(beside, AROUND)])
@each_copy
def test_a_copy_is_of_one_moment(kind, beside, how):
    """The arrays are read one by one, so a copy is refused if something changes them meanwhile."""
    schedule, grad = Meddling(), np.ones((3, 2))
    opt = AROUND[kind](schuss.Adam(np.ones((3, 2)), lr=schedule))
    opt.step(grad)
    if (kind, beside) == ("accumulate", "another group"):
        opt.step(grad)  # within a mean none can be added
    schedule.use = lambda: (opt.step_count, opt.state_dict(), opt.metrics(), repr(opt), opt.max_grad_norm)
    assert_unchanged(how(opt), snapshot(opt), "reading changes nothing")
    schedule.use = lambda: BESIDE[beside](opt, grad)
    with pytest.raises(RuntimeError, match=r"was changed or saved while it was copied|is in the middle of a step"):
        how(opt)


class Between:
    """Something that is copied between optimizers, and uses them then."""

    use = staticmethod(lambda: None)

    def __reduce__(self):
        self.use()
        return Between, ()


@each_copy
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_wrapper_and_its_optimizer_are_copied_at_one_moment(how, wrapped):
    inner, between, grad = schuss.Adam(np.ones(3), lr=0.1), Between(), np.ones(3)
    ema, other = schuss.EMA(schuss.Lookahead(inner) if wrapped else inner), schuss.Lookahead(inner)
    ema.step(grad)
    opt, _, copied, _ = how([inner, between, ema, other])
    assert copied._stepped is opt
    between.use = lambda: ema.step(grad)
    for before in (inner, other):
        with pytest.raises(RuntimeError, match="was changed or saved while it was copied"):
            how([before, between, ema])
    copied, _, opt = how([ema, between, inner])
    assert copied._stepped is opt and copied.step_count == opt.step_count == inner.step_count - 1


@each_copy
def test_no_copy_while_the_parameters_are_others(how):
    """Neither of a wrapper nor of what it wraps, whose states do not belong to these parameters."""
    w, message = np.ones(3), r"is in the middle of a step|are at"
    ema = schuss.EMA(schuss.SGD(w, lr=0.5))
    sam = schuss.SAM(schuss.SGD(w.copy(), lr=0.5))
    ema.step(w.copy())
    sam.first_step(np.ones(3))
    with ema.swap():
        for opt in (ema, ema.optimizer, sam, sam.optimizer):
            with pytest.raises(RuntimeError, match=message):
                how(opt)
    sam.second_step(np.ones(3))
    for opt in (ema, ema.optimizer, sam, sam.optimizer):
        assert_unchanged(how(opt), snapshot(opt))
    w, refused = np.ones(3), []

    def closure():
        with pytest.raises(RuntimeError, match=message) as error:
            how(lbfgs)
        refused.append(error)
        return float(w @ w), 2 * w

    lbfgs = schuss.LBFGS(w, lr=0.1)
    lbfgs.step(closure)
    assert refused
    assert_unchanged(how(lbfgs), snapshot(lbfgs))


@each_copy
def test_copies_keep_accumulated_gradients(how):
    opt = start(TYPICAL["Adam"])
    for g in leaves(opt.grads):
        g[...] = 0.5
    other = how(opt)
    assert_same(leaves(other.grads), leaves(opt.grads))
    assert not any(np.shares_memory(a, b) for a, b in zip(leaves(opt.grads), leaves(other.grads), strict=True))


@each_dtype
@each_copy
def test_copies_keep_dtypes_layouts_and_groups(dtype, how):
    (a, b, c, _), (x, y, z, _) = params_of(SHAPES, dtype), grads_of(1, SHAPES, dtype)
    opt = schuss.Adam([{"params": {"w": np.asfortranarray(b)}, "lr": 0.5}, {"params": (a, c)}], nonfinite="skip")
    grads, bad = [{"w": y}, (x, z)], [{"w": np.full_like(y, np.nan)}, (x, z)]
    assert opt.step(grads) is True and opt.step(bad) is False
    opt.add_param_group({"params": np.ones(3, dtype)})
    other = how(opt)
    assert_unchanged(other, snapshot(opt), "just copied")
    for o in (opt, other):
        assert o.step([*grads, np.ones(3, dtype)]) is True and o.step([*bad, np.ones(3, dtype)]) is False
    assert_unchanged(other, snapshot(opt), "two steps later")
    assert other.param_groups[0]["params"][0].flags.f_contiguous


@each_copy
def test_copies_keep_the_initial_learning_rate(how):
    """Independent decay divides by it, also when the current rate is 0."""
    opt = schuss.AdamW([{"params": np.ones(3), "decay_form": "independent", "weight_decay": 0.5}], lr=0.5)
    opt.param_groups[0]["lr"] = 0.0
    other = how(opt)
    assert other.param_groups[0]["lr"] == 0.0
    for o in (opt, other):
        o.param_groups[0]["lr"] = 0.25
        o.step([np.zeros(3)])
    assert_same(parameters(other), [np.full(3, 0.75)])
    assert_same(parameters(opt), [np.full(3, 0.75)])


def ramp(step):
    """A plain function, which has no initial_lr."""
    return 0.25 * min(step, 1)


@each_copy
def test_copies_keep_the_constructors_values(how):
    """Groups that are added take them, whatever the present ones are."""
    opt = schuss.SGD([np.ones(3)], lr=0.5)
    opt.lr = 0.25
    other = how(opt)
    other.add_param_group({"params": [np.ones(3)]})
    assert [group["lr"] for group in other.param_groups] == [0.25, 0.5]


class Halved(NamedTuple):
    """A schedule that is a tuple."""

    first: float

    def __call__(self, step):
        return self.first / 2**step


@each_copy
def test_copies_of_groups_with_a_schedule_that_is_a_tuple(how):
    opt = how(schuss.SGD([{"params": [np.ones(3)]}], lr=Halved(0.5)))
    opt.step([[np.ones(3)]])
    assert opt.param_groups[0]["lr"] == Halved(0.5) and opt.lr == 0.25


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickled])
def test_copies_of_a_group_are_dicts(how):
    """Writing to one does not change the optimizer."""
    w = np.ones(3)
    opt = schuss.SGD([w], lr=0.5)
    copied = how(opt.param_groups[0])
    assert type(copied) is dict and list(copied) == list(opt.param_groups[0]) and copied["lr"] == 0.5
    copied["lr"] = 8.0
    opt.step([np.ones(3)])
    assert (w == 0.5).all()


@each_copy
@pytest.mark.parametrize("grouped", [False, True])
def test_copies_keep_the_initial_learning_rate_of_a_schedule_that_begins_at_zero(how, grouped):
    w = np.ones(3)
    opt = schuss.AdamW([{"params": w}] if grouped else w, lr=0.5, weight_decay=0.5, decay_form="independent")
    opt.param_groups[0]["lr"] = ramp
    grads = [np.zeros(3)] if grouped else np.zeros(3)
    opt.step(grads)
    other = how(opt)
    for o in (opt, other):
        o.step(grads)
        assert_same(parameters(o), [np.full(3, 0.75)])


@pytest.mark.parametrize("wrapped", [False, True])
def test_unpickling_over_read_only_memory(wrapped):
    """Ray and joblib deliver such buffers, not aligned either: the optimizer has copies then."""
    params = {"w": np.arange(6.0).reshape(2, 3), "b": [np.asfortranarray(np.ones((2, 3), np.float32))]}
    opt = schuss.Adam([{"params": params, "betas": (0.5, 0.75)}], lr=0.1)
    opt = schuss.Lookahead(opt, k=2) if wrapped else opt
    grads = lambda opt: [{"w": np.ones((2, 3)), "b": [np.ones((2, 3))]}]  # noqa: E731
    opt.grads[0]["w"][...] = 1.0
    opt.step(grads(opt))
    buffers = []
    text = pickle.dumps(opt, protocol=5, buffer_callback=buffers.append)
    memory = [memoryview(b"x" + bytes(buffer)).toreadonly()[1:] for buffer in buffers]
    other = pickle.loads(text, buffers=memory)
    assert_unchanged(other, snapshot(opt))
    for o in (opt, other):
        o.step(zero_grads=True)
        o.step(grads(o))
    assert_unchanged(other, snapshot(opt))
    assert buffers and not other.grads[0]["w"].any()
