"""An exception between any two instructions of Python leaves arrays on a GPU as before or as after a call."""

import copy
import signal

import gpu
import numpy as np
import pytest
from gpu_pairs import emulated, normal
from helpers import leaves
from interrupts import Shot, check_all_or_nothing

import schuss
from schuss.wrappers import offload

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that sends signals")

SHAPES = [(7,), (3, 4)]
GRADS = [gpu.Array(normal(shape, np.float32, 9)) for shape in SHAPES]


def image(opt):
    if isinstance(opt, schuss.Offload):
        arrays, scalars = image(opt.optimizer)
        return [*(array.host.copy() for array in opt.given), *arrays], repr((scalars, opt.grad_norm))
    state = opt.state_dict()
    params = [getattr(array, "numpy", array.copy)() for group in opt.param_groups for array in group["params"]]
    arrays = [*params, *leaves([list(group.values()) for group in state["state"]]), *state.get("shared", {}).values()]
    arrays += [grad.numpy() for grad in opt._stepped._grads or []]
    scalars = {key: value for key, value in state.items() if key not in ("state", "shared")}
    return copy.deepcopy([array for array in arrays if array is not None]), repr((scalars, opt.grad_norm))


def step(opt):
    if isinstance(opt, schuss.Offload):
        return opt.step(GRADS)
    return opt.step([GRADS, [gpu.Array(np.ones(2, np.float32))]] if opt._grouped else GRADS)


def made(kind, around=None, **options):
    def make():
        opt = kind([gpu.Array(normal(shape, np.float32, 1)) for shape in SHAPES], **({"lr": 0.1} | options))
        if around is not None:
            opt = schuss.Lookahead(opt, **around)
        for _ in range(3):
            step(opt)
        return opt

    return make


def load(make):
    other = make()
    other.param_groups[0]["lr"] = 0.5
    step(other)
    state = copy.deepcopy(other.state_dict())
    return make, lambda opt: opt.load_state_dict(state)


def add_group(opt):
    opt.add_param_group({"params": [gpu.Array(np.ones(2, np.float32))]})


def offloaded():
    params = [gpu.Array(normal(shape, np.float16, 1)) for shape in SHAPES]
    opt = schuss.Offload(schuss.AdamW, params, lr=0.1, max_grad_norm=1.0)
    opt.given = params
    step(opt)
    return opt


def not_uploaded():
    """One whose master weights are others than the parameters on the GPU."""
    opt = offloaded()
    for master in opt.optimizer.param_groups[0]["params"]:
        master += 1.0
    return opt


def with_grads():
    opt = made(schuss.AdamW)()
    for leaf in opt.grads:
        leaf.fill(3.0)
    return opt


def evaluate(opt):
    with opt.evaluate():
        pass


CALLS = {
    "AdamW": (made(schuss.AdamW, max_grad_norm=1.0), step),
    "Prodigy": (made(schuss.Prodigy), step),
    "Lookahead": (made(schuss.AdamW, {"k": 4}), step),
    "Lookahead, reset": (made(schuss.AdamW, {"k": 4, "pullback": "reset"}), step),
    "EMA": (lambda: schuss.EMA(made(schuss.AdamW)()), step),
    "sync": (made(schuss.AdamW, {"k": 100}), lambda opt: opt.sync()),
    "load_state_dict": load(made(schuss.AdamW)),
    "add_param_group": (made(schuss.AdamW), add_group),
    "lr": (made(schuss.AdamW), lambda opt: setattr(opt, "lr", 0.75)),
    "step_count": (made(schuss.AdamW), lambda opt: setattr(opt, "step_count", 100)),
    "zero_grad": (with_grads, lambda opt: opt.zero_grad()),
    "evaluate": (made(schuss.AdamW, {"k": 100}), evaluate),
    "Offload": (offloaded, step),
    "upload": (not_uploaded, lambda opt: opt.upload()),
}


@pytest.mark.parametrize("name", CALLS)
def test_all_or_nothing_on_a_gpu(name, monkeypatch):
    monkeypatch.setattr(offload, "_PIECE", 5)
    check_all_or_nothing(*CALLS[name], step, image, name)


@emulated
def test_other_streams_wait_for_a_step_that_an_interrupt_followed():
    """The next gradients are not written before this step has read those that it was given."""
    opt = made(schuss.AdamW)()
    work = opt._backend.work

    class Interrupted:
        def __getattr__(self, name):
            return getattr(work, name)

        def step(self, *args):
            work.step(*args)
            raise Shot

    opt._backend.work = Interrupted()
    gpu.log()
    with pytest.raises(Shot):
        opt.step([gpu.Array(normal(shape), stream=0x77) for shape in SHAPES])
    lines = gpu.log()
    assert opt.step_count == 4 and "order 0x1 before 0x77" in lines
