"""Forks, environment variables, signals and the end of a process. Each test runs a process with a time limit."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

import schuss

LIMIT = 120  # seconds; every test takes only a few

PRELUDE = """
import hashlib, multiprocessing, os, signal, sys, threading, time, warnings
import numpy as np, schuss

warnings.simplefilter("ignore", DeprecationWarning)  # forking a process with threads is deprecated


def made(n=200_000):
    return schuss.AdamW(np.linspace(-1, 1, n, dtype=np.float32), lr=0.1)


def digest(opt):
    state = opt.state_dict()["state"][0]
    return [hashlib.sha256(a.tobytes()).hexdigest() for a in (opt.param_groups[0]["params"][0], state["m"], state["v"])]


def train(steps, n=200_000, threads=2):
    schuss.set_num_threads(threads)
    opt, grad = made(n), np.linspace(2, -1, n, dtype=np.float32)
    for _ in range(steps):
        opt.step(grad)
    return digest(opt)

"""


@pytest.fixture
def run(tmp_path):
    """Runs a script in a new process group, and kills the whole group afterwards."""

    def run(body, *, ok=True, interrupt=False, **environment):
        script = tmp_path / "script.py"
        script.write_text(PRELUDE + body, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            start_new_session=True,
        )
        try:
            if interrupt:
                assert process.stdout.readline() == "ready\n", process.stderr.read()
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=LIMIT)
        finally:
            if os.name == "posix":
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
        assert not ok or process.returncode == 0, err
        return out if ok else err

    return run


posix = pytest.mark.skipif(os.name != "posix", reason="needs fork and signals")


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot choose a process's CPUs here")
def test_more_threads_than_cpus(run, cpus):
    """As in a container, or on a busy machine: helpers come late or not at all, or are more than a step wants."""
    run(f"""
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cpus}])
expected = {{n: train(10, n, threads=1) for n in (20_000, 70_000, 1_000_000)}}
for threads in (4, 16, 64, 3):
    for n in (1_000_000, 20_000, 70_000, 1_000_000):
        assert train(10, n, threads) == expected[n], (threads, n)
""")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@posix
def test_child_processes(run, method):
    """Children use threads of their own after their parent has used its threads."""
    run(
        f"""
if __name__ == "__main__":
    want = train(3)
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool:
        assert pool.map(train, [3, 3, 3]) == [want] * 3
        assert pool.starmap(train, [(3, 200_000, 1), (3, 200_000, 5)]) == [want] * 2
    assert train(3) == want
"""
    )


@posix
def test_children_of_children(run):
    run(
        """
want = train(3)
for generation in range(3):
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        assert train(3) == want
        os._exit(0)
    assert train(3) == want
"""
    )


@posix
def test_fork_while_another_thread_steps(run):
    """Optimizers work in the child. One that was in the middle of a step when the process forked may refuse."""
    run(
        """
want, schuss_threads = train(3), schuss.set_num_threads(2)
busy, idle, grad = made(2_000_000), made(), np.linspace(2, -1, 200_000, dtype=np.float32)
wide, stop = np.ones(2_000_000, np.float32), threading.Event()


def loop():
    while not stop.is_set():
        busy.step(wide)


thread = threading.Thread(target=loop)
thread.start()
for _ in range(20):
    time.sleep(0.003)
    child = os.fork()
    if not child:
        status = 1
        try:
            assert train(3) == want
            for _ in range(3):
                assert idle.step(grad)
            assert digest(idle) == want
            try:
                busy.step(wide)
            except RuntimeError as error:
                assert "in the middle of a step" in str(error)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
thread.join()
"""
    )


@pytest.mark.parametrize("text", ["1", "3", "100"])
def test_threads_from_the_environment(run, text):
    assert run("print(schuss.get_num_threads(), end='')", SCHUSS_NUM_THREADS=text) == text


def test_threads_by_default(run):
    """The default is the number of CPUs of the process. An empty variable counts as unset."""
    out = run("print(schuss.get_num_threads(), end='')", SCHUSS_NUM_THREADS="")
    assert 1 <= int(out) <= os.cpu_count()


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "two", "1e3", " ", str(2**70)])
def test_wrong_threads_in_the_environment(run, text):
    """The import succeeds: another part of the program may have done it."""
    made = "import numpy as np; opt = schuss.SGD(np.ones(3))"
    asked = "\ntry: schuss.get_num_threads()\nexcept RuntimeError: pass\n"
    error = run(f"schuss.show_config();{asked}{made}", ok=False, SCHUSS_NUM_THREADS=text).splitlines()[-1]
    assert error == f'RuntimeError: SCHUSS_NUM_THREADS="{text}" is not a whole number of threads >= 1 and < 65536'


@pytest.mark.parametrize("level", schuss.cpu_levels())
def test_a_level_from_the_environment(run, level):
    assert run("print(schuss.cpu_level(), end='')", SCHUSS_CPU=level) == level
    assert run("print(schuss.cpu_level(), end='')", SCHUSS_CPU="") == schuss.cpu_levels()[-1]


@pytest.mark.parametrize("text", ["mmx", "AVX2", " "])
def test_a_wrong_level_in_the_environment(run, text):
    made = "import numpy as np; opt = schuss.SGD(np.ones(3))"
    asked = "\ntry: schuss.cpu_level()\nexcept RuntimeError: pass\n"
    error = run(f"schuss.show_config();{asked}{made}", ok=False, SCHUSS_CPU=text).splitlines()[-1]
    found = ", ".join(schuss.cpu_levels())
    assert error == f'RuntimeError: SCHUSS_CPU="{text}" is not a level that this CPU has; it has {found}'


@posix
@pytest.mark.parametrize("size", [1000, 2_000_000])
def test_ctrl_c_ends_a_training_loop(run, size):
    """It does so within seconds, between two steps."""
    out = run(
        f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
opt, twin, grad = made({size}), made({size}), np.linspace(2, -1, {size}, dtype=np.float32)
try:
    opt.step(grad)
    print("ready", flush=True)
    start = time.monotonic()
    while time.monotonic() < start + 60:
        for _ in range(10):
            opt.step(grad)
    print("never interrupted")
except KeyboardInterrupt:
    for _ in range(opt.step_count):
        twin.step(grad)
    print("whole" if digest(opt) == digest(twin) else "torn", time.monotonic() - start < 20)
""",
        interrupt=True,
    )
    assert out == "whole True\n"


@pytest.mark.parametrize(("size", "threads", "lr"), [(2_000_000, 1, "0.1"), (100, 3, "lambda step: 0.1")])
def test_the_process_ends_while_threads_step(run, size, threads, lr):
    """Daemon threads in a step, or in a schedule that it calls, neither delay nor crash the end of the process."""
    run(
        f"""
def loop():
    opt, grad = schuss.AdamW(np.ones({size}, np.float32), lr={lr}), np.ones({size}, np.float32)
    while True:
        opt.step(grad)


for _ in range({threads}):
    threading.Thread(target=loop, daemon=True).start()
time.sleep(0.2)
"""
    )


def test_the_process_ends_while_threads_look_up_keys(run):
    """Keys of a dict whose comparisons are written in Python."""
    run(
        """
class Key:
    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return 1

    def __eq__(self, other):
        return sum(range(1000)) > 0 and self.name == other.name


def loop():
    opt = schuss.AdamW({Key(i): np.ones(3) for i in range(8)})
    grads = {Key(i): np.ones(3) for i in range(8)}
    while True:
        opt.step(grads)


for _ in range(3):
    threading.Thread(target=loop, daemon=True).start()
time.sleep(0.2)
"""
    )


@posix
def test_more_threads_than_help_are_not_started(run):
    """At most four for each CPU: a thousand make a step several times slower."""
    run(
        """
import glob
before = len(glob.glob("/proc/self/task/*"))
train(2, n=5_000_000, threads=2)
want = train(2, n=5_000_000, threads=1)
assert train(2, n=5_000_000, threads=1000) == want and schuss.get_num_threads() == 1000
if before:
    assert len(glob.glob("/proc/self/task/*")) - before < 5 * len(os.sched_getaffinity(0)) + 2
"""
    )


@posix
def test_threads_with_a_small_stack(run):
    """Of 32 KiB, the least that Python allows until 3.13, whatever a step converts: large tiles are elsewhere."""
    run(
        """
def step():
    schuss.set_num_threads(1)
    for kind, dtype, given in [
        (schuss.AdamW, np.float32, dict(state_dtype="int8")),
        (schuss.AdamW, np.float16, dict(max_grad_norm=1.0)),
        (schuss.Adafactor, np.float16, {}),
        (schuss.LAMB, np.float16, dict(state_dtype="bfloat16", master_weights=True)),
        (schuss.Lion, np.float16, dict(state_dtype="int8", state_rounding="stochastic")),
        (schuss.Ranger, np.float16, dict(state_dtype="int8")),
    ]:
        opt = kind(np.ones((50, 100), dtype), **given)
        for grad in np.float64, np.float32, np.float16, ">f4":
            assert opt.step(np.ones((50, 100), grad), zero_grads=grad != ">f4")
    done.append(True)


done = []
# CPython 3.14 raises an error long before a stack is full: of 52 KiB, the least it allows, when it uses 16.
threading.stack_size((32 if sys.version_info < (3, 14) else 80) << 10)
thread = threading.Thread(target=step)
thread.start()
thread.join()
assert done
"""
    )


@posix
def test_a_fork_with_the_number_of_its_parent(run):
    """In another process-number space, as in a container, both are process 1."""
    run(
        """
import ctypes
libc = ctypes.CDLL(None)


def in_a_space_of_its_own(then):
    if libc.unshare(0x20000000) and libc.unshare(0x30000000):  # NEWPID, and NEWUSER for those who are not root
        return  # not permitted here
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        return
    try:
        assert os.getpid() == 1
        then()
        os._exit(0)
    except BaseException:
        os._exit(1)


def first():
    want = train(3)

    def second():
        assert train(3) == want

    in_a_space_of_its_own(second)


in_a_space_of_its_own(first)
"""
    )
