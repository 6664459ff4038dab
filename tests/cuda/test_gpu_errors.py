"""What is left when the driver or the compiler fails, at any one of its calls: see docs/guide/cuda.rst."""

import contextlib
import gc
import re
import sys
from collections import Counter
from typing import Any, NamedTuple

import gpu
import numpy as np
import pytest
from gpu_pairs import assert_same, emulated, normal, pair, step_both
from helpers import arrays

import schuss
from schuss import _schuss
from schuss._backends import cuda_arrays
from schuss.wrappers import offload

pytestmark = emulated


@pytest.fixture(autouse=True, scope="module")
def no_collector():
    """It would free arrays of other optimizers between the calls that are counted."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


SHAPES = [(7, 3), (5,)]
OUT_OF_MEMORY = "CUDA error CUDA_ERROR_OUT_OF_MEMORY (out of memory)"
BLOCK = r"allocating \d+ bytes on device 0"
#: What a message says was being done, by the names of the calls in the emulator's log.
DOING = {
    "alloc": BLOCK, "fill": rf"({BLOCK}|filling memory)", "synchronize": rf"({BLOCK}|waiting for a stream)",
    "copy": "copying", "pin": r"pinning \d+ bytes", "launch": "starting a kernel", "record": "recording an event",
    "order": "ordering streams", "wait": "waiting for an event",
}  # fmt: skip


@contextlib.contextmanager
def failing(call, nth=1):
    gpu.fail(call, nth)
    try:
        yield
    finally:
        gpu.fail("")


def refused(call, nth=1):
    """A context in which this call of the driver fails, and the message says so."""
    stack = contextlib.ExitStack()
    stack.enter_context(pytest.raises(MemoryError, match=f"^{DOING[call]}: {re.escape(OUT_OF_MEMORY)}$"))
    stack.enter_context(failing(call, nth))
    return stack


# Every call of the driver, in turn.


class Array(gpu.Array):
    """An array of a library with a current stream."""

    __module__ = "cupy"


@pytest.fixture
def stream(monkeypatch):
    """The current stream of that library, in a list."""
    now = [1]
    monkeypatch.setitem(sys.modules, "cupy", gpu.cupy(now))
    return now


def on_gpu(value):
    return gpu.Array(value, stream=0x77)


def inner(opt):
    return opt.optimizer if isinstance(opt, schuss.Offload) else opt


def image(opt):
    """Everything of an optimizer on a GPU that a call may change."""
    state = inner(opt).state_dict()
    counts = state["step"], state["skipped_steps"], repr(state["param_groups"]), getattr(opt, "mode", None)
    values = [np.asarray(array).tobytes() for array in arrays(inner(opt))]
    if isinstance(opt, schuss.Offload):
        gpu.EMULATOR.cuCtxSynchronize()  # for its own streams
        values += [param.host.tobytes() for param in opt.given]
    return counts, values, opt.grad_norm


class Case(NamedTuple):
    kind: Any
    #: What is called, with the optimizer and gradients.
    act: Any
    #: After this line of the log parameters and states may have changed: the nth with this word; none if it is empty.
    writes: tuple[str, int]
    options: dict[str, Any] = {}
    #: The steps before.
    steps: int = 2
    grad_dtype: Any = np.float32

    def made(self, kind, param=np.array, array=np.array):
        """An optimizer after some steps; its parameters are in two groups."""
        params = [param(normal(shape)) for shape in SHAPES]
        opt = kind([{"params": [p]} for p in params], **self.options)
        if isinstance(opt, schuss.Offload):
            opt.given = params
        for t in range(self.steps):
            step(opt, [array(normal(shape, seed=t)) for shape in SHAPES])
        return opt

    def ready(self):
        """The optimizer on the host and on the GPU, and gradients for both."""
        own = schuss.AdamW if self.kind is offloaded else self.kind
        grads = [normal(shape, self.grad_dtype, 9) for shape in SHAPES]
        return self.made(own), self.made(self.kind, Array, on_gpu), grads, [on_gpu(g) for g in grads]


def offloaded(params, **options):
    return schuss.Offload(schuss.AdamW, params, **options)


def step(opt, grads, **options):
    return opt.step([[g] for g in grads], **options)


def zeroing(opt, grads):
    return step(opt, grads, zero_grads=True)


def skipped(opt, grads):
    array = np.array if isinstance(grads[0], np.ndarray) else on_gpu
    return step(opt, [grads[0], array(np.full(SHAPES[1], np.inf, np.float32))])


def add_group(opt, grads):
    opt.add_param_group({"params": grads})


def load(opt, grads):
    other = Case(schuss.AdamW, None, ("", 0), {"lr": 0.5}, steps=4)
    opt.load_state_dict(other.made(other.kind).state_dict())


CLIP = {"max_grad_norm": 1.0}
CASES = {
    "SGD, first step": Case(schuss.SGD, step, ("launch", 1), steps=0),
    "LAMB, first step": Case(schuss.LAMB, step, ("launch", 3), CLIP, steps=0),
    "AdamW": Case(schuss.AdamW, zeroing, ("launch", 1)),
    "another type": Case(schuss.AdamW, step, ("launch", 3), CLIP, grad_dtype=np.float16),
    "shared states": Case(schuss.Prodigy, step, ("launch", 3)),
    "taken": Case(schuss.Adam, step, ("launch", 3), CLIP | {"nonfinite": "skip"}),
    "skipped": Case(schuss.Adam, skipped, ("", 0), CLIP | {"nonfinite": "skip"}),
    "Offload, first step": Case(offloaded, zeroing, ("wait", 1), CLIP, steps=0),
    "Offload": Case(offloaded, step, ("wait", 1), CLIP),
    "Lookahead": Case(lambda params: schuss.Lookahead(schuss.AdamW(params), k=3), step, ("launch", 1)),
    "EMA": Case(lambda params: schuss.EMA(schuss.AdamW(params)), step, ("launch", 1)),
    "add_param_group": Case(schuss.AdamW, add_group, ("", 0), CLIP),
    "load_state_dict": Case(schuss.AdamW, load, ("to-device", 4)),
    "eval": Case(schuss.ScheduleFreeAdamW, lambda opt, grads: opt.eval(), ("launch", 1)),
    "update_hessian": Case(schuss.SophiaG, lambda opt, grads: opt.update_hessian([[g] for g in grads]), ("launch", 1)),
}


def calls(lines):
    """Each call of a log: its name, and how many of this name there have been."""
    seen = Counter()
    for line in lines:
        name = line.split()[0]
        seen[name] += 1
        yield name, seen[name]


@pytest.mark.parametrize("name", CASES)
def test_any_call_of_the_driver_may_fail(name, stream, tmp_path, monkeypatch):
    """Until the first one that writes, nothing has changed. Later a step does not count, and a checkpoint restores all.

    A step of a wrapper may count without its part. Memory that cannot be freed is lost, without an error.
    """
    case = CASES[name]
    monkeypatch.setattr(offload, "_PIECE", 8)

    def ready(save=False):
        stream[0] = 0x51
        made = case.ready()
        before = image(made[1])
        cuda_arrays._tool.cache_clear()  # or the call would free what it forgets
        if save:
            schuss.save(tmp_path / "before", inner(made[1]))
        stream[0] = 0x52  # what is called runs in another stream
        return *made, before

    for _ in range(2):  # the first loads kernels
        _, there, _, grads, _ = ready()
        gpu.log()
        case.act(there, grads)
        lines = gpu.log()
    word, nth = case.writes
    writes = [i for i, line in enumerate(lines) if word in line][nth - 1] if word else len(lines)
    back = "order 0x52 before 0x77"  # if this fails at the end of a step, the host waits
    ended = lines.index(back) - 1 if back in lines and case.kind is not offloaded else len(lines)
    for i, (call, nth) in enumerate(calls(lines)):
        here, there, given, grads, before = ready(i > writes)
        if call in ("free", "unpin") or i >= ended:
            with failing(call, nth):
                result = case.act(there, grads)
        else:
            with refused(call, nth):
                case.act(there, grads)
            after = inner(there).step_count
            assert after == case.steps or isinstance(there, (schuss.Lookahead, schuss.EMA)) or case.act is load
            if i <= writes:
                assert image(there) == before, (call, nth)
                assert [g.host.tobytes() for g in grads] == [g.tobytes() for g in given], (call, nth)
            else:
                schuss.load(tmp_path / "before", inner(there))
                if case.kind is offloaded:
                    there.upload()
                stream[0] = 0x53
                assert image(there)[:2] == before[:2], (call, nth)
                grads = [on_gpu(g) for g in given]
            result = case.act(there, grads)
        assert result == case.act(here, given)
        assert_same(here, inner(there))
        assert image(there)[0] == image(here)[0] and repr(there.grad_norm) == repr(here.grad_norm)


@pytest.mark.parametrize("call", ["order", "record"])
def test_gradients_of_another_stream_may_be_overwritten_after_any_step(call, stream):
    """Their stream waits for the step, also if a part of it failed; if the driver cannot let it wait, the host does."""
    case = CASES["AdamW"]
    _, opt, _, grads = case.ready()
    gpu.log()
    with refused("launch", 2):
        step(opt, grads)
    lines = gpu.log()
    assert lines.index("launch stage0_elements 1 0x1") < lines.index("order 0x1 before 0x77")
    with failing(call, {"order": 3, "record": 3}[call]):
        assert step(opt, grads)
    assert gpu.log()[-1] == "synchronize 0x1"


def grad_norm(opt):
    return opt.grad_norm


def shared(opt):
    return repr(opt.state_dict()["shared"])


@pytest.mark.parametrize(
    ("call", "read"),
    [(call, grad_norm) for call in ("pin", "copy", "synchronize")]
    + [(call, shared) for call in ("wait", "copy", "synchronize")],
)
def test_reading_again_after_an_error(call, read):
    here, there = pair(schuss.Prodigy, [normal(5)], max_grad_norm=1.0)
    step_both(here, there, [normal(5, seed=1)])
    with refused(call):
        read(there)
    assert read(there) == read(here)


def test_the_norm_is_that_of_the_last_step_that_was_taken():
    """After an error of the driver it is not known."""
    here, there = pair(schuss.SGD, [normal(5)], max_grad_norm=1.0)
    step_both(here, there, [normal(5, seed=1)])
    here.add_param_group({"params": normal(3)})
    there.add_param_group({"params": gpu.Array(normal(3))})
    assert there.grad_norm == here.grad_norm is not None
    grads = [normal(5, seed=2)], normal(3)
    assert here.step(grads) and there.step([[gpu.Array(grads[0][0])], gpu.Array(grads[1])])
    here.nonfinite = there.nonfinite = "error"
    with pytest.raises(FloatingPointError):
        there.step([[gpu.Array(np.full(5, np.nan))], gpu.Array(normal(3))])
    assert there.grad_norm == here.grad_norm is not None
    there.nonfinite = "propagate"
    there.step([[gpu.Array(normal(5, seed=3))], gpu.Array(normal(3))])
    with refused("launch", 3):
        there.step([[gpu.Array(normal(5, seed=4))], gpu.Array(normal(3))])
    assert there.grad_norm is None


# The compiler, and what the extension module checks by itself.


def test_kernels_that_do_not_compile_or_load(monkeypatch):
    monkeypatch.setenv("SCHUSS_CUDA_CACHE", "")
    here, there = schuss.Adagrad(normal(5)), schuss.Adagrad(gpu.Array(normal(5), device=1))  # no other test loads these
    grad, before = gpu.Array(normal(5, seed=1), device=1), image(there)
    for call, error, message in [
        ("program", RuntimeError, "NVRTC cannot make a program"),
        ("compile", RuntimeError, "NVRTC 12.99 for sm_90: emulated"),
        ("code", RuntimeError, "NVRTC status 2"),
        ("load", MemoryError, f"loading a kernel: {OUT_OF_MEMORY}"),
    ]:
        with pytest.raises(error, match=f"^{re.escape(message)}$"), failing(call):
            there.step(grad)
        assert image(there) == before
    assert there.step(grad) and here.step(normal(5, seed=1))
    assert_same(here, there)


def work(rule="sgd", dtype="float32", states=0, matrix=None):
    """A work list with one array, for calls that Python never makes."""
    made = _schuss.CudaWork(0)
    array = gpu.Array(normal(4))
    hypers = schuss._core.rules.RULES[rule].hypers
    made.add_group([(rule, 6 + len(hypers))], [(0, array.pointer, dtype, 4, [array.pointer] * states, matrix)])
    return made


def started(values, grads):
    steps = [1] * len(values)
    types = ["float32"] * len(grads)
    work("sgd").step("step", values, steps, [], grads, types, 1.0, None, False, False, False, 1)


WRONG = {
    "values": (lambda: started([], [0]), ValueError, "a step needs values for each rule"),
    "gradients": (
        lambda: started([[0.0] * 6], []), ValueError, "there must be as many gradients as there are arrays",
    ),
    "shared": (lambda: work().set_shared([1.0, 2.0]), RuntimeError, "0 states are shared, got 2"),
    "states": (lambda: work(states=1), TypeError, "states do not fit the rule"),
    "dtype": (lambda: work(dtype="int8"), TypeError, "no dtype int8"),
    "matrix": (lambda: work("adafactor", states=2), TypeError, "the matrix does not fit the parameter"),
    "rule": (
        lambda: work("nag", states=1), TypeError,
        "nag does not run on a GPU: it looks ahead, which only the host does",
    ),
    "device": (
        lambda: _schuss.CudaBlock(2, 8, False), RuntimeError,
        "opening device 2: CUDA error CUDA_ERROR_UNKNOWN (emulated)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_the_extension_module_checks_what_it_is_given(case):
    wrong, error, message = WRONG[case]
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        wrong()
