"""Little memory is left: a call succeeds, or raises MemoryError and changes nothing; it never ends the process."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="needs RLIMIT_AS and the kernel's statistics"
)

# Each case runs in a process of its own, and each limit in a child of that.
SCRIPT = """
import copy, mmap, os, resource, sys, tempfile
import ml_dtypes, numpy as np, schuss

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
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    codes = [int(code) for code in done.stdout.strip("[]\n").split(",")]
    assert set(codes) == {SUCCEEDED, FAILED} and codes[-1] == SUCCEEDED, f"{codes} {done.stderr}"
