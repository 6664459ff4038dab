"""Arrays that change, move or share memory while an optimizer holds them give a clear error or the right step."""

import contextlib
import copy
import subprocess
import sys

import numpy as np
import pytest
from helpers import F32, assert_same, assert_unchanged, build, each_optimizer, leaves, refused, snapshot, states

import schuss


def array(n):
    """Ones in newly allocated memory."""
    return np.ones(n, F32)


# Parameters that change without the optimizer's knowledge.

CHANGES = {
    "grown": lambda p: p.resize(100_000, refcheck=False),
    "shrunk": lambda p: p.resize(1, refcheck=False),
    "emptied": lambda p: p.resize(0, refcheck=False),
    "reshaped": lambda p: p.resize((20, 50), refcheck=False),
    "restrided": lambda p: setattr(p, "strides", (0,)),
    "retyped": lambda p: setattr(p, "dtype", np.int32),
    "another byte order": lambda p: setattr(p, "dtype", ">f4"),
    "objects": lambda p: p.__setstate__((1, p.shape, np.dtype(object), False, [None] * p.size)),
    "re-pointed": lambda p: p.__setstate__((1, (999,), p.dtype, False, bytes(4 * 999))),
    "read-only": lambda p: setattr(p.flags, "writeable", False),
}
CHANGED = (
    "params['a'] was resized, re-pointed, retyped or made read-only after the optimizer was made; make a new optimizer"
)


def changing():
    """An optimizer that has taken a step, and the parameter to change."""
    p, q = array(1000), array(1000)
    opt = schuss.Adam({"a": p, "b": q})
    opt.step({"a": array(1000), "b": array(1000)})
    return opt, p


def rest_of(opt):
    """All arrays but the first parameter, and the counts."""
    arrays, steps = snapshot(opt)
    return arrays[1:], steps


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy deprecates setting array attributes
@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
@pytest.mark.parametrize("like", ["before", "now", "before, converted", "now, converted"])
def test_changed_parameters(change, like, tmp_path):
    """A step raises, with any gradients; no other method crashes."""
    opt, p = changing()
    shape = p.shape
    change(p)
    arrays, steps = rest_of(opt)
    for zero_grads in (False, True):
        a = np.ones(shape if "before" in like else p.shape, ">f4" if "converted" in like else F32)
        grads = {"a": a, "b": array(1000)}
        with pytest.raises(ValueError) as caught:
            opt.step(grads, zero_grads=zero_grads)
        assert str(caught.value) == CHANGED
        assert a.all() and grads["b"].all()
        assert_same(rest_of(opt)[0], arrays)
        assert rest_of(opt)[1] == steps
    assert "Adam" in repr(opt)
    for use in [
        copy.deepcopy,
        lambda o: schuss.save(tmp_path / "file", o),
        lambda o: schuss.load(tmp_path / "file", o),
        lambda o: o.load_state_dict(o.state_dict()),
        lambda o: o.add_param_group({"params": array(3)}),
        lambda o: o.grads,
    ]:
        with contextlib.suppress(TypeError, ValueError, OSError):
            use(opt)


def test_a_parameter_that_was_read_only_for_a_while():
    opt, p = changing()
    grads = {"a": array(1000), "b": array(1000)}
    p.flags.writeable = False
    with pytest.raises(ValueError, match=r"params\['a'\] was resized"):
        opt.step(grads)
    p.flags.writeable = True
    assert opt.step(grads) and opt.step_count == 2


OFF = {
    "a read-only parameter": (lambda p, g: setattr(p.flags, "writeable", False), r"params\[{}\] was resized"),
    "a parameter elsewhere": (lambda p, g: p.resize(100_000, refcheck=False), r"params\[{}\] was resized"),
    "a longer gradient": (lambda p, g: g.resize(3, refcheck=False), r"grads\[{}\]"),
    "a read-only gradient": (lambda p, g: setattr(g.flags, "writeable", False), r"grads\[{}\]"),
}


@pytest.mark.parametrize("at", [255, 9999])
@pytest.mark.parametrize(("change", "message"), OFF.values(), ids=list(OFF))
def test_one_bad_array_of_ten_thousand(at, change, message):
    """All threads check so many arrays; they find the bad one, and nothing changes."""
    params, grads = [array(2) for _ in range(10_000)], [array(2) for _ in range(10_000)]
    opt = schuss.Adam(params)
    for _ in range(2):
        assert opt.step(grads, zero_grads=False)
    change(params[at], grads[at])
    before = snapshot(opt)
    with pytest.raises((TypeError, ValueError), match=message.format(at)):
        opt.step(grads, zero_grads=True)
    assert_same(snapshot(opt)[0], before[0])
    assert snapshot(opt)[1] == before[1]
    assert all(g[:2].all() for g in grads)


def test_one_new_gradient_of_ten_thousand():
    """When one of many gradients is another array than before, the step uses the new one."""
    params, grads = [array(2) for _ in range(10_000)], [array(2) for _ in range(10_000)]
    opt = schuss.SGD(params, lr=1.0)
    for at, new in [(0, F32), (255, np.float64), (5000, np.float16), (9999, F32)]:
        opt.step(grads)
        grads[at] = np.full(2, 3, new)
        before = [p.copy() for p in params]
        opt.step(grads)
        assert_same(params, [p - g.astype(F32) for p, g in zip(before, grads, strict=True)])


@pytest.mark.parametrize("where", ["schedule", "gradient"])
@pytest.mark.parametrize("how", ["grown", "shrunk", "emptied"])
def test_parameters_changed_during_a_step(where, how):
    p, q = array(1000), array(1000)

    def change(outcome):
        CHANGES[how](p)
        return outcome

    opt = schuss.SGD([p, q], lr=(lambda step: change(0.1)) if where == "schedule" else 0.1)
    grads = [array(1000), array(1000)]
    if where == "gradient":
        grads[1] = Callback(lambda: change(array(1000)))
    with pytest.raises(ValueError, match=r"^params\[0\] was resized"):
        opt.step(grads)
    assert_same([q], [array(1000)])
    assert opt.step_count == 0


class Callback:
    """A gradient that is not an array; it runs code when NumPy converts it to one."""

    def __init__(self, call):
        self.call = call

    def __array__(self, dtype=None, copy=None):
        return self.call()


RESIZED_GRADIENT = """
import numpy as np, schuss
first = np.ones(10**6, np.float32)
class Callback:
    def __array__(self, dtype=None, copy=None):
        first.resize(1, refcheck=False)
        return np.ones(3)
opt = schuss.SGD([np.ones(10**6, np.float32), np.ones(3)])
try:
    opt.step([first, Callback()])
except (TypeError, ValueError) as error:
    print(error)
"""


def test_a_gradient_resized_during_a_step():
    """Another gradient's conversion resizes it after it was checked. Runs in a child process: it could crash."""
    done = subprocess.run([sys.executable, "-c", RESIZED_GRADIENT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("change", ["clear", "pop", "append", "replace"])
@pytest.mark.parametrize("kind", [list, dict])
def test_gradients_removed_during_a_step(kind, change):
    """A step uses the gradients that were in the structure when it began."""
    grads = {k: array(1000) for k in range(4)} if kind is dict else [array(1000) for _ in range(4)]

    def spoil():
        if change == "clear":
            grads.clear()
        elif change == "pop":
            grads.pop(3)
        elif change == "replace":
            grads[3] = None
        else:
            grads.append(array(1000)) if kind is list else grads.update({4: array(1000)})
        return array(1000)

    params = copy.deepcopy(grads)
    grads[1] = Callback(spoil)
    schuss.SGD(params, lr=1.0).step(grads)
    assert not any(p.any() for p in leaves(params))


# Gradients that share memory with parameters or states.

SHARED = {
    "swapped": lambda a, b, states: [b, a],
    "themselves": lambda a, b, states: [a, b],
    "backwards": lambda a, b, states: [b[::-1], a[::-1]],
    "shifted": lambda a, b, states: [np.concatenate([a[1:], b[:1]]), np.lib.stride_tricks.as_strided(a, a.shape)],
    "through __array__": lambda a, b, states: [Callback(lambda: b), Callback(lambda: a)],
    "states": lambda a, b, states: [states[-1], states[0]],
    "memoryviews": lambda a, b, states: [np.frombuffer(memoryview(b), b.dtype), np.asarray(memoryview(a))],
}


@each_optimizer
@pytest.mark.parametrize("shared", SHARED.values(), ids=list(SHARED))
@pytest.mark.parametrize("size", [33, 100_003])
def test_gradients_that_share_memory(case, shared, size):
    """The result is that of a step with copies of the gradients."""
    if "NAG" in case.optimizer:
        pytest.skip("moves the parameters before it takes gradients")
    steps = []
    for taken in (lambda grads: grads, lambda grads: [np.array(g) for g in grads]):
        a, b = (np.random.default_rng(i).standard_normal(size).astype(F32) for i in (1, 2))
        opt = build(case, [a, b])
        own = [s for s in states(opt).values() if s.shape == a.shape]
        for _ in range(3):
            opt.step(taken(shared(a, b, own or [a, b])))
        steps.append(snapshot(opt)[0])
    assert_same(steps[0], steps[1])


@pytest.mark.parametrize("share", ["itself", "shifted", "through __array__", "state"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_of_functions_that_share_memory(share, dtype):
    n, results = 5000, []
    for take in (lambda g: g, lambda g: np.array(g)):
        memory = np.random.default_rng(2).standard_normal(3 * n)
        p, m, v = memory[n : n + n // 2].view(F32), np.ones(n, F32), np.ones(n, F32)
        grads = {
            "itself": p,
            "shifted": memory[n // 4 :].view(dtype)[:n],
            "through __array__": Callback(lambda: memory[n // 4 :].view(dtype)[:n]),  # noqa: B023
            "state": m,
        }
        schuss.functional.adam_(p, take(grads[share]), m, v, step=1, lr=0.1)
        results.append([memory, m, v])
    assert_same(results[0], results[1])


def test_a_gradient_that_grows_into_a_parameter():
    """The gradient keeps its address but gets a larger dtype, so that it overlaps the parameter."""
    n = 4000
    memory = np.zeros(n)
    p = memory[n // 2 :].view(F32)
    opt = schuss.SGD(p, lr=1.0)
    opt.step(memory[: n // 4].view(np.float16))
    memory[:] = np.arange(n)
    want = p - memory.astype(F32)
    opt.step(memory)
    assert_same([p], [want])


def test_a_group_may_not_share_memory_with_the_optimizer_s_own_arrays():
    w = np.ones(3)
    opt = schuss.Lookahead(schuss.Adam([w], lr=0.1))
    _ = opt.grads
    state = opt.state_dict()["state"][0]
    before = snapshot(opt)
    for own in (state["m"][0], state["v"][0][1:], state["slow"][0], opt.grads[0]):
        message = "param_groups[1]['params'][0] shares memory with this optimizer's own state or gradients; pass a copy"
        with refused(ValueError, message):
            opt.add_param_group({"params": [own]})
    with pytest.raises(ValueError, match="is the same memory as"):
        opt.add_param_group({"params": [w]})
    assert_unchanged(opt, before)


@pytest.mark.parametrize("inner", [schuss.AdamW, schuss.NAG, schuss.Newton])
def test_zeroed_gradients_share_no_memory_with_slow_weights(inner):
    w = np.arange(1.0, 4.0)
    opt = schuss.Lookahead(inner([w]), k=5)
    opt.add_param_group({"params": [np.ones(3)]})

    def step(opt, grads, **options):
        if inner is schuss.NAG:
            return opt.step(lambda: grads, **options)
        return opt.step(grads, *([np.eye(6)] if inner is schuss.Newton else []), **options)

    for group in range(2):
        slow = opt.state_dict()["state"][group]["slow"][0]
        for view in (slow, slow[::-1], slow.view(np.float32)[::2]):
            grads = [[np.ones(3)], [np.ones(3)]]
            grads[group] = [view]
            before = snapshot(opt)
            with pytest.raises(ValueError, match=r"shares memory with a parameter or a state, so zero_grads=True"):
                step(opt, grads, zero_grads=True)
            assert_unchanged(opt, before)
        assert step(opt, [[slow], [slow.copy()]])
    inner_one, copied = opt.optimizer, slow
    del opt
    if inner is schuss.AdamW:  # nobody's slow weights any more
        assert inner_one.step([[copied], [np.ones(3)]], zero_grads=True) and not copied.any()


def test_a_state_to_load_may_be_made_of_views_of_the_live_one():
    """Swapped, reversed or shifted: what counts is what they were when the call began."""
    opt = schuss.Adam([np.ones(4), np.ones(4)], lr=0.1)
    opt.step([np.arange(4.0), -np.arange(4.0)])
    state = opt.state_dict()
    (one, other), (v, _) = state["state"][0]["m"], state["state"][0]["v"]
    wanted = copy.deepcopy([other, v, one[::-1], one])
    state["state"][0] = {"m": [other, v], "v": [one[::-1], one]}
    opt.load_state_dict(state)
    now = opt.state_dict()["state"][0]
    assert_same([*now["m"], *now["v"]], wanted)


# Code of the user's that a step runs.


class Fixing:
    """A gradient that makes another array read-only when it is read."""

    def __init__(self, values, other):
        self.values, self.other = values, other

    def __array__(self, dtype=None, copy=None):
        self.other.flags.writeable = False
        return self.values


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4"])
@pytest.mark.parametrize("kind", [schuss.SGD, schuss.Newton])
def test_a_gradient_that_makes_another_read_only(kind, dtype):
    """One that is to be zeroed: nothing is written before all of the user's code has run."""
    params = [array(3), array(2)]
    first = np.ones(3, dtype)
    opt = kind(params, lr=0.1)
    more = (np.eye(5),) if kind is schuss.Newton else ()
    before = snapshot(opt)
    for _ in range(2):
        first.flags.writeable = True
        with pytest.raises((TypeError, ValueError)):
            opt.step([first, Fixing(array(2), first)], *more, zero_grads=True)
        assert first.tolist() == [1.0] * 3 and opt.step_count == 0
        assert_same([p for p in params], [array(3), array(2)])
    assert_same(snapshot(opt)[0], before[0])
    first.flags.writeable = True
    assert opt.step([first, array(2)], *more, zero_grads=True) and not first.any()


def test_the_values_that_kernels_read_cannot_be_resized():
    opt = schuss.SGD(array(3), lr=0.5)
    group = opt.param_groups[0]
    assert not any(isinstance(value, np.ndarray) for name, value in vars(group).items() if not name.startswith("_"))
    for values in group._packed.values():
        with pytest.raises(ValueError, match="cannot resize"):
            values.resize(100, refcheck=False)
    group["lr"] = 0.25
    opt.step(array(3))
    assert opt.param_groups[0]["params"][0].tolist() == [0.75] * 3
