"""An exception between any two instructions of Python: Ctrl-C, or a signal handler that raises.

A timer raises at a random moment of each call that changes something. Afterwards every byte is as before the call or as
after it, and training goes on from there. `make interrupts` does it ten thousand times for each call. Functions
of arrays are in test_interrupts_elsewhere.py.
"""

import contextlib
import copy
import gc
import os
import signal

import ml_dtypes
import numpy as np
import pytest
from helpers import leaves, parameters
from interrupts import Shot, check_all_or_nothing

import schuss

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that sends signals"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SHAPES = [(7,), (3, 4), ()]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def image(opt):
    """Copies of all arrays, and all else that an optimizer consists of: what Python shows and what the kernels use."""
    state, inner = opt.state_dict(), opt._stepped
    arrays = [*parameters(opt), *leaves([list(group.values()) for group in state["state"]]), *leaves(inner._grads)]
    arrays += [*state.get("shared", {}).values(), *leaves(getattr(opt, "_given_grads", None))]
    scalars = {key: value for key, value in state.items() if key not in ("state", "shared")}
    packed = [values.tolist() for group in opt.param_groups for values in group._packed.values()]
    kernels = (inner._limits, inner._rounding_seed, packed)
    names = ("last_damping", "grad_norm", "_grouped", "_templates")
    scalars |= {name: getattr(opt, name, None) for name in names}
    return copy.deepcopy([array for array in arrays if array is not None]), repr((scalars, kernels))


def gradients(opt, value=0.25):
    """Gradients with this value in the structure of the parameters."""
    grads = [np.full(p.shape, value, np.float32) for p in parameters(opt)]
    return [grads[: len(SHAPES)], grads[len(SHAPES) :]] if opt._grouped else grads


def step_with(opt, grads):
    """A step with these gradients; NAG takes a closure and Newton a Hessian."""
    if isinstance(opt, schuss.SAM) or isinstance(opt._stepped, schuss.NAG):
        return opt.step(lambda: grads, zero_grads=True)
    more = [np.eye(sum(g.size for g in leaves(grads)))] if isinstance(opt._stepped, schuss.Newton) else []
    return opt.step(grads, *more, zero_grads=True)


def step(opt, value=0.25):
    """A step with gradients of this value."""
    if isinstance(opt, schuss.LBFGS):
        return lbfgs_step(opt)
    if hasattr(opt, "train"):
        opt.train()
    return step_with(opt, gradients(opt, value))


def made(kind, *, dtype=np.float32, around=None, **options):
    """A function that makes an optimizer of this kind which has taken three steps."""

    def make():
        opt = kind([np.ones(shape, dtype) for shape in SHAPES], **({"lr": 0.1} | options))
        if around is not None:
            opt = schuss.Lookahead(opt, **around)
        for value in (0.5, 1.0, 1.5):
            step(opt, value)
        return opt

    return make


def averaged(average, **options):
    """What makes an optimizer with an average around it, after steps."""

    def make():
        opt = average(made(schuss.AdamW, **options)())
        step(opt, 2.0)
        return opt

    return make


def with_grads(make):
    """What makes the optimizer of `make` with gradients in its own buffers."""

    def make_with_grads():
        opt = make()
        for leaf in leaves(opt.grads):
            leaf[...] = 3.0
        return opt

    return make_with_grads


def before_step(make):
    """What makes the optimizer of `make` with gradients for a step, which the step sets to zero."""

    def make_before_step():
        opt = make()
        opt._given_grads = gradients(opt)
        return opt

    return make_before_step


def closure_that_raises(opt):
    def closure():
        raise Shot

    with contextlib.suppress(Shot):
        opt.step(closure)


PLATEAU = schuss.schedules.reduce_on_plateau
LONG = np.ones(100_000, np.float32)


def long_nag():
    """One whose call is in the native look-ahead most of the time, after which interrupts then arrive."""
    opt = schuss.NAG([LONG.copy()], lr=0.1)
    opt.step(lambda: [LONG.copy()])
    return opt


def evaluate(opt):
    with opt.evaluate():
        pass


def lbfgs_step(opt):
    params = parameters(opt)
    opt.step(lambda: (sum(float((p * p).sum()) for p in params), [2 * p for p in params]))


def both_steps(opt):
    """SAM's two steps one by one; one that is interrupted between them goes back."""
    grads = [np.full(shape, 0.5, np.float32) for shape in SHAPES]
    try:
        opt.first_step(grads)
        opt.second_step(grads)
    except Shot:
        with contextlib.suppress(TypeError, RuntimeError):
            opt.second_step(1)  # no gradients, or there is no way to go back
        raise


def searching():
    """An LBFGS that has taken a step."""
    opt = schuss.LBFGS([np.ones(shape, np.float32) for shape in SHAPES], 0.1, max_iter=3, line_search_fn="strong_wolfe")
    lbfgs_step(opt)
    return opt


def swap(opt):
    with opt.swap():
        pass


def other(make):
    """An optimizer whose state differs in everything."""
    opt = make()
    opt.param_groups[0].update(lr=0.5, weight_decay=0.125)
    opt.max_grad_norm = 3.0
    step(opt, 2.0)
    return opt


def load_dict(make):
    state = copy.deepcopy(other(make).state_dict())
    return make, lambda opt: opt.load_state_dict(state)


def fitting(make):
    state = copy.deepcopy(other(make).state_dict())
    state["state"][0]["m"][1] = np.ones(2)  # of another shape, so that this array is not loaded
    return make, lambda opt: opt.load_state_dict(state, strict=False)


def on_a_plateau():
    """An optimizer whose schedule has seen a metric."""
    opt = made(schuss.AdamW, lr=PLATEAU(0.5, patience=0))()
    opt.param_groups[0]["lr"].update(1.0)
    return opt


def evaluating():
    opt = made(schuss.ScheduleFreeAdamW)()
    opt.eval()
    return opt


def add_group(opt):
    opt.add_param_group({"params": [np.ones(2, np.float32)], "lr": 0.5})


def two_groups():
    """An optimizer with two groups."""
    opt = made(schuss.AdamW)()
    opt.add_param_group({"params": [np.ones(2, np.float32)]})
    return opt


def setting(name, value):
    """A call that sets an attribute."""
    return lambda opt: setattr(opt, name, value)


def step_rows(opt):
    return opt.step_rows([([6, 1, 6], np.ones(3)), ([2, 0], np.ones((2, 4))), None])


def update_one(opt):
    with opt.stepping() as update:
        update(parameters(opt)[1], np.ones(SHAPES[1], np.float32))


NEXT = {"k": 4}  # the next step synchronizes
LATER = {"k": 100}

TRANSFORMS = [schuss.transforms.accumulate(2), schuss.transforms.apply_if_finite(1), schuss.transforms.clip(0.125)]


def transformed(transforms=TRANSFORMS):
    return lambda: schuss.Transformed(made(schuss.AdamW)(), transforms)


def accumulating():
    opt = schuss.Transformed(made(schuss.AdamW, nonfinite="skip")(), [schuss.transforms.accumulate(2)])
    opt.step(gradients(opt))
    return opt


def skipped(opt):
    """A step that is skipped, in the middle of an accumulation."""
    grads = gradients(opt, np.nan)
    assert not opt.step(grads, zero_grads=True)


def sam():
    return schuss.SAM(made(schuss.AdamW)())


CALLS = {
    **{name: (made(kind), step) for name, kind in schuss.OPTIMIZERS.items()},
    "clipped Newton": (made(schuss.Newton, max_grad_norm=1.0), step),
    "int8": (made(schuss.AdamW, state_dtype="int8"), step),
    "a schedule": (made(schuss.AdamW, lr=lambda step: 0.1 / (step + 1)), step),
    "schedules": (made(schuss.AdamW, weight_decay=lambda step: 0.1 / (step + 1), betas=lambda step: (0.5, 0.9)), step),
    "a schedule of weight decay": (
        made(schuss.AdamW),
        lambda opt: opt.param_groups[0].update(weight_decay=schuss.schedules.constant(0.5)),
    ),
    "NAG of a long array": (long_nag, lambda opt: opt.step(lambda: [LONG.copy()])),
    "rows": (made(schuss.AdamW, max_grad_norm=1.0), step_rows),
    "rows that catch up": (made(schuss.Adam, catch_up=True), step_rows),
    "array by array": (made(schuss.AdamW), update_one),
    "a closure that raises": (made(schuss.NAG), closure_that_raises),
    "Lookahead": (made(schuss.AdamW, around=NEXT), step),
    "Lookahead of bfloat16": (made(schuss.AdamW, dtype=BFLOAT16, around=NEXT), step),
    "Lookahead of master weights": (made(schuss.AdamW, dtype=BFLOAT16, master_weights=True, around=NEXT), step),
    "Lookahead, reset": (made(schuss.Prodigy, around=NEXT | {"pullback": "reset"}), step),
    "Lookahead, pullback": (made(schuss.NAG, around=NEXT | {"pullback": "pullback"}), step),
    "Lookahead of Newton": (made(schuss.Newton, around=NEXT), step),
    "Transformed": (transformed(TRANSFORMS[1:]), step),
    "accumulate": (transformed(), step),
    "a skipped step": (accumulating, skipped),
    "LBFGS": (searching, lbfgs_step),
    "SAM": (sam, step),
    "SAM's two steps": (sam, both_steps),
    "EMA": (averaged(schuss.EMA), step),
    "EMA of Lookahead": (averaged(schuss.EMA, around=NEXT), step),
    "SWA of bfloat16": (averaged(schuss.SWA, dtype=BFLOAT16), step),
    "update": (averaged(schuss.Polyak), lambda opt: opt.update()),
    "swap": (averaged(schuss.EMA, dtype=BFLOAT16), swap),
    "load_state_dict of SWA": load_dict(averaged(schuss.SWA)),
    "sync": (made(schuss.AdamW, dtype=BFLOAT16, around=LATER | {"pullback": "reset"}), lambda opt: opt.sync()),
    "evaluate": (made(schuss.AdamW, around=LATER), evaluate),
    "evaluate, bfloat16": (made(schuss.AdamW, dtype=BFLOAT16, around=LATER), evaluate),
    "load_state_dict": load_dict(made(schuss.Adam)),
    "load_state_dict, bfloat16": load_dict(made(schuss.Adam, state_dtype="bfloat16")),
    "load_state_dict of Lookahead": load_dict(made(schuss.AdamW, around=NEXT)),
    "load_state_dict of EMA": load_dict(averaged(schuss.EMA)),
    "load_state_dict of Transformed": load_dict(transformed()),
    "load": (made(schuss.Adam), schuss.load),
    "load of Ranger": (made(schuss.Ranger), schuss.load),
    "load of EMA": (averaged(schuss.EMA), schuss.load),
    "load of Transformed": (transformed(), schuss.load),
    "add_param_group": (with_grads(made(schuss.Adam)), add_group),
    "add_param_group of Lookahead": (made(schuss.NAG, around=NEXT | {"pullback": "pullback"}), add_group),
    "add_param_group of SAM": (sam, add_group),
    "add_param_group of EMA": (averaged(schuss.EMA), add_group),
    "add_param_group of Transformed": (transformed(), add_group),
    "hyperparameters": (made(schuss.AdamW), lambda opt: opt.param_groups[0].update(lr=0.75, weight_decay=0.25)),
    "lr": (two_groups, setting("lr", 0.75)),
    "step_count": (made(schuss.Adam), setting("step_count", 100)),
    "step_count of EMA": (averaged(schuss.EMA), setting("step_count", 100)),
    "grads": (made(schuss.AdamW), lambda opt: setattr(opt, "grads", opt.grads)),
    "an option": (made(schuss.AdamW), setting("max_grad_norm", 2.0)),
    "an option of Lookahead": (made(schuss.AdamW, around=NEXT), setting("nonfinite", "skip")),
    "k": (made(schuss.AdamW, around=NEXT), setting("k", 3)),
    "alpha": (made(schuss.AdamW, around=NEXT), setting("alpha", 0.75)),
    "alpha of Ranger": (made(schuss.Ranger), setting("alpha", 0.75)),
    "pullback": (made(schuss.AdamW, around=NEXT), setting("pullback", "reset")),
    "rho": (sam, setting("rho", 0.5)),
    "decay": (averaged(schuss.EMA), setting("decay", 0.5)),
    "zero_grad": (with_grads(made(schuss.AdamW)), lambda opt: opt.zero_grad()),
    "a copy": (made(schuss.AdamW), copy.deepcopy),
    "some gradients": (made(schuss.AdamW), lambda opt: opt.step([None, np.ones((3, 4)), None], partial=True)),
    "what fits of a state": fitting(made(schuss.Adam)),
    "a schedule's state": (
        on_a_plateau,
        lambda opt: opt.param_groups[0]["lr"].load_state_dict(PLATEAU(0.25).state_dict()),
    ),
    "a metric": (on_a_plateau, lambda opt: opt.param_groups[0]["lr"].update(2.0)),
    "a Hessian": (made(schuss.SophiaG), lambda opt: opt.update_hessian([np.ones(shape) for shape in SHAPES])),
    "eval": (made(schuss.ScheduleFreeAdamW), lambda opt: opt.eval()),
    "train": (evaluating, lambda opt: opt.train()),
    "clip_grad_norm_": (with_grads(made(schuss.AdamW)), lambda opt: schuss.gradients.clip_grad_norm_(opt.grads, 0.5)),
    "clip_grad_value_": (with_grads(made(schuss.AdamW)), lambda opt: schuss.gradients.clip_grad_value_(opt.grads, 0.5)),
    "centralize_": (with_grads(made(schuss.AdamW)), lambda opt: schuss.gradients.centralize_(opt.grads)),
}


def calls(name, folder):
    """How to make the optimizer, and the call to interrupt."""
    make, call = CALLS[name]
    if call is step:
        return before_step(make), lambda opt: step_with(opt, opt._given_grads)
    if call is schuss.load:
        schuss.save(folder / "file", other(make))
        return make, lambda opt: schuss.load(folder / "file", opt)
    return make, call


@pytest.mark.parametrize("name", CALLS)
def test_all_or_nothing(name, tmp_path):
    make, call = calls(name, tmp_path)
    files = open_files()
    check_all_or_nothing(make, call, step, image, name)
    assert open_files() == files


def open_files():
    """How many files this process has open, where the system tells."""
    gc.collect()  # what an interrupt has dropped
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@pytest.mark.parametrize("exists", [True, False])
def test_save(exists, tmp_path):
    """The file is the old or the new one, whole; it can be loaded, and the next save removes what is left."""
    make, path = made(schuss.Adam), tmp_path / "file"
    schuss.save(path, other(make))
    old = path.read_bytes()

    def make_with_file():
        path.unlink(missing_ok=True)
        if exists:
            path.write_bytes(old)
        return make()

    def image_with_file(opt):
        arrays, text = image(opt)
        return ([np.frombuffer(path.read_bytes(), np.uint8)] if path.exists() else []) + arrays, text

    def go_on(opt):
        if path.exists():
            schuss.load(path, opt)
        step(opt)
        schuss.save(path, opt)
        assert os.listdir(tmp_path) == ["file"]

    before, name = open_files(), "save" if exists else "first save"
    check_all_or_nothing(make_with_file, lambda opt: schuss.save(path, opt), go_on, image_with_file, name)
    assert open_files() <= before
