"""Little memory is left: a call succeeds, or raises MemoryError and changes nothing; it never ends the process."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="needs RLIMIT_AS and the kernel's statistics"
)

# Each case runs in a process of its own, and each limit in a child of that.
SCRIPT = """
import copy, mmap, os, resource, sys, tempfile, traceback
import ml_dtypes, numpy as np, numpy.ma, schuss

N = 1 << 20
rng = np.random.default_rng(1)


def array(*shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def stepped(kind, *arrays, **options):
    opt = kind(list(arrays), **({"lr": 0.1} | options))
    opt.step([np.ones_like(a) for a in arrays])
    return opt


def image(opt):
    if opt is None:
        return []
    def leaves(tree):
        if isinstance(tree, np.ndarray):
            return [tree]
        values = tree.values() if isinstance(tree, dict) else tree or []
        return [leaf for value in values for leaf in leaves(value)]
    state = opt.state_dict()
    arrays = [*leaves([group["params"] for group in opt.param_groups]), *leaves(state["state"])]
    scalars = {name: value for name, value in state.items() if name != "state"}
    return [a.tobytes() for a in arrays] + [repr(scalars)]


def newton():
    w, g, h = array(1500, dtype=np.float64), np.ones(1500), np.eye(1500)
    opt = schuss.Newton(w)
    return opt, lambda: opt.step(g, h)


def huge():
    # 2e9 elements, of whose memory nothing is ever touched.
    memory = mmap.mmap(-1, 8 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    w = np.frombuffer(memory, np.float32, 2_000_000_000)
    return None, lambda: schuss.SGD(w)


def make(kind, *shape, **options):
    w = array(*shape)
    return None, lambda: kind(w, **options)


def nag():
    w = array(4 * N)
    opt = schuss.NAG(w, lr=0.1)
    g = np.ones_like(w)
    return opt, lambda: opt.step(lambda: g)


def step(kind, g, **options):
    opt = stepped(kind, array(4 * N), **options)
    return opt, lambda: opt.step([g])


def rows(kind, **options):
    opt = stepped(kind, array(N // 16, 64), **options)
    indices, values = rng.integers(0, N // 16, N // 16), array(N // 16, 64)
    return opt, lambda: opt.step_rows([(indices, values)])


def load():
    opt = stepped(schuss.Adam, array(N), array(N), array(N))
    path = tempfile.mktemp()
    schuss.save(path, opt)
    opt.step([np.ones(N, np.float32)] * 3)
    return opt, lambda: schuss.load(path, opt)


def swapped():
    opt = stepped(schuss.Adam, array(N), array(N), array(N))
    state = opt.state_dict()
    state["state"][0]["m"] = state["state"][0]["m"][::-1]
    return opt, lambda: opt.load_state_dict(state)


def evaluate():
    opt = schuss.Lookahead(stepped(schuss.AdamW, array(4 * N)))
    opt.step([np.ones(4 * N, np.float32)])

    def call():
        with opt.evaluate():
            pass

    return opt, call


def add(wrapped):
    opt = stepped(schuss.AdamW, array(N))
    opt = schuss.Lookahead(opt) if wrapped else opt
    w = array(4 * N)
    return opt, lambda: opt.add_param_group({"params": [w]})


CASES = {
    "Newton": newton,
    "2e9 elements": huge,
    "Ranger": lambda: make(schuss.Ranger, 1000, 2000),
    "Adafactor": lambda: make(schuss.Adafactor, 2, 2 * N),
    "Prodigy": lambda: make(schuss.Prodigy, 4 * N),
    "bfloat16": lambda: make(schuss.AdamW, 8 * N, state_dtype="bfloat16"),
    "NAG": nag,
    "a converted gradient": lambda: step(schuss.AdamW, np.ones(8 * N, np.float32)[::2]),
    "rows": lambda: rows(schuss.SGD, max_grad_norm=1.0),
    "rows that are copied": lambda: rows(schuss.Adam, catch_up=True),
    "load": load,
    "views rearranged": swapped,
    "evaluate": evaluate,
    "a group": lambda: add(False),
    "a group of Lookahead": lambda: add(True),
}


def attempt(opt, call, left):
    child = os.fork()
    if not child:
        status = 1
        try:
            before = image(opt)
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + left, resource.RLIM_INFINITY))
            failed = False
            try:
                call()
            except MemoryError:
                failed = True
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert not failed or image(opt) == before, "it has changed something"
            status = 2 if failed else 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


schuss.set_num_threads(1)
opt, call = CASES[sys.argv[1]]()
print([attempt(opt, call, int(left * 2**20)) for left in (0, 1, 3, 6, 10, 14, 18, 24, 32, 36, 42, 50, 60, 75, 1000)])
"""
SUCCEEDED, FAILED = 0, 2
NAMES = [line.split('"')[1] for line in SCRIPT.partition("CASES = {")[2].partition("}")[0].splitlines() if '"' in line]


@pytest.mark.parametrize("name", NAMES)
def test_little_memory(name):
    # The C library then gives freed arrays back at once: what it keeps could be had in spite of the limit.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    codes = [int(code) for code in done.stdout.strip("[]\n").split(",")]
    assert set(codes) == {SUCCEEDED, FAILED} and codes[-1] == SUCCEEDED, f"{codes} {done.stderr}"


# Any allocation as large as a list with an entry for each array fails, one after the other, each in a child.
MANY = """
import copy, ctypes, gc, os, sys, tempfile, traceback
import numpy as np, numpy.ma, schuss

library = ctypes.CDLL(os.environ["LD_PRELOAD"])
COUNT, LEAST = 1000, 8 * 1000


def arrays(value=1.0, dtype=np.float32, shape=(2,), order="C"):
    return [np.full(shape, value, dtype, order) for _ in range(COUNT)]


def leaves(tree):
    if isinstance(tree, np.ndarray):
        return [tree]
    values = tree.values() if isinstance(tree, dict) else tree or []
    return [leaf for value in values for leaf in leaves(value)]


def image(opt):
    if opt is None:
        return None
    state = opt.state_dict()
    all_arrays = leaves([[group["params"] for group in opt.param_groups], state.pop("state")])
    return [a.tobytes() for a in all_arrays], repr(state)


def stepped(kind, *given, around=lambda opt: opt, grads=None, **options):
    opt = around(kind(*(given or (arrays(),)), **({"lr": 0.1} | options)))
    opt.step(arrays(0.5) if grads is None else grads)
    return opt


def make(kind, **options):
    params = arrays()
    return None, lambda: kind(params, **options)


def step(kind, grads, options=(), **hypers):
    opt = stepped(kind, **hypers)
    return opt, lambda: opt.step(grads, **dict(options))


def first_step(kind, params, **options):
    opt, grads = kind(params, **options), [np.ones_like(p) for p in params]
    return opt, lambda: opt.step(grads)


def own_gradients():
    opt = stepped(schuss.AdamW)
    leaves(opt.grads)[0][:] = 1.0
    return opt, opt.step


def nag():
    opt, grads = schuss.NAG(arrays(), lr=0.1), arrays(0.5)
    return opt, lambda: opt.step(lambda: grads)


def sam():
    opt, grads = schuss.SAM(schuss.SGD(arrays())), arrays(0.5)
    return opt, lambda: opt.step(lambda: grads)


def transformed(some):
    transforms = [schuss.transforms.clip(1.0), schuss.transforms.clip_by_global_norm(1.0)]
    opt = schuss.Transformed(schuss.SGD(arrays()), transforms)
    grads = [None if some and i % 3 else g for i, g in enumerate(arrays(0.5))]
    return opt, lambda: opt.step(grads)


def groups():
    opt = schuss.SGD([{"params": p, "lr": lambda step: 0.1} for p in arrays()[:500]])
    grads = arrays(0.5)[:500]
    return opt, lambda: opt.step(grads)


def load(by_file):
    opt = stepped(schuss.Adam)
    path, state = tempfile.mktemp(), copy.deepcopy(opt.state_dict())
    schuss.save(path, opt, include_params=True)
    opt.step(arrays(2.0))
    return opt, lambda: schuss.load(path, opt, include_params=True) if by_file else opt.load_state_dict(state)


def lookahead(k):
    return stepped(schuss.AdamW, around=lambda opt: schuss.Lookahead(opt, k=k))


def synchronization():
    opt, grads = lookahead(2), arrays(0.5)
    return opt, lambda: opt.step(grads)


def evaluate():
    opt = lookahead(9)

    def call():
        with opt.evaluate():
            pass

    return opt, call


def add_group():
    opt, more = stepped(schuss.AdamW), arrays()
    return opt, lambda: opt.add_param_group({"params": more})


def norm():
    grads = arrays(3.0)
    return None, lambda: schuss.global_norm(grads)


TENSORS = [np.asfortranarray(np.ones((700, 3, 4), np.float32))]

CASES = {
    "AdamW": lambda: make(schuss.AdamW),
    "Adafactor": lambda: make(schuss.Adafactor),
    "a step": lambda: step(schuss.AdamW, arrays(0.5)),
    "zeroed gradients": lambda: step(schuss.AdamW, arrays(0.5), {"zero_grads": True}),
    "other gradients": lambda: step(schuss.AdamW, arrays(0.5, np.float16), {"zero_grads": True}, max_grad_norm=1.0),
    "missing gradients": lambda: step(schuss.AdamW, [g if i % 3 else None for i, g in enumerate(arrays(0.5))]),
    "own gradients": own_gradients,
    "converted gradients": lambda: step(schuss.AdamW, arrays(0.5, ">f4")),
    "the first step of LAMB": lambda: first_step(schuss.LAMB, arrays(dtype=np.float16)),
    "of Prodigy": lambda: first_step(schuss.Prodigy, arrays()),
    "of Adafactor": lambda: first_step(schuss.Adafactor, TENSORS),
    "of int8 states": lambda: first_step(schuss.AdamW, arrays(shape=(300,)), state_dtype="int8"),
    "NAG": nag,
    "SAM": sam,
    "the first step of transforms": lambda: transformed(some=False),
    "transforms of some gradients": lambda: transformed(some=True),
    "EMA": lambda: step(schuss.AdamW, arrays(0.5), around=schuss.EMA),
    "schedules": groups,
    "load": lambda: load(True),
    "load_state_dict": lambda: load(False),
    "a synchronization": synchronization,
    "evaluate": evaluate,
    "a group": add_group,
    "global_norm": norm,
}


def attempt(opt, call, nth):
    child = os.fork()
    if not child:
        status = 1
        try:
            before, failed = image(opt), False
            library.fail(nth, LEAST)
            try:
                call()
            except MemoryError:
                failed = True
            reached = library.has_failed()
            library.fail(-1, 0)
            assert not failed or image(opt) == before, "it has changed something"
            status = 2 if reached else 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


schuss.set_num_threads(1)
opt, call = CASES[sys.argv[1]]()
gc.disable()
codes = []
while len(codes) < 400 and (not codes or codes[-1] != 0):
    codes.append(attempt(opt, call, len(codes)))
print(codes)
"""
MANY_NAMES = [
    line.split('"')[1] for line in MANY.partition("CASES = {")[2].partition("}\n\n")[0].splitlines() if '":' in line
]


@pytest.mark.parametrize("name", MANY_NAMES)
def test_each_allocation_of_many_arrays_may_fail(name, counting):
    done = subprocess.run(
        [sys.executable, "-c", MANY, name],
        env=os.environ | {"LD_PRELOAD": str(counting)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes = [int(code) for code in done.stdout.strip("[]\n").split(",")]
    assert set(codes) <= {SUCCEEDED, FAILED} and codes[-1] == SUCCEEDED, f"{codes} {done.stderr}"
