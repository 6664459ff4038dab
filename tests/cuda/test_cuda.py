"""Tests of GPU support that need no GPU; with a GPU, they also run the other tests on it.

NVRTC compiles the kernels for four architectures. An emulator of the driver and the compiler (support/emulator.cpp)
runs them on the host, in processes of its own.
"""

import itertools
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nvrtc_units
import pytest
from helpers import ROOT

import schuss
from schuss import _schuss
from schuss._backends import nvrtc

HERE = Path(__file__).parent
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="NVRTC and the emulator are for Linux here")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("EMULATOR", "SCHUSS"))}


def run(script, **env):
    path = os.pathsep.join(sys.path)
    env = CLEAN | {"PYTHONPATH": path} | env
    return subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)


def has_gpu():
    return run("from schuss import _schuss; _schuss.CudaWork(0)").returncode == 0


# On a GPU, real or emulated.


@LINUX
@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
@pytest.mark.parametrize(
    ("files", "env"),
    [
        (["."], {}),
        (
            [f"test_gpu_{name}.py" for name in ("driver", "errors", "offload", "steps", "wrong_calls")],
            {"EMULATOR_LAZY": "1"},
        ),
    ],
    ids=["eager", "lazy"],
)
def test_on_the_emulator(files, env):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(HERE / file) for file in files)]
    env = CLEAN | {"SCHUSS_TEST_CUDA": "emulator"} | env
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout.splitlines()[-1]


def test_on_a_gpu():
    if not has_gpu():
        pytest.skip("needs an NVIDIA GPU and its driver; make test-cuda runs this where there is one")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE)]
    done = subprocess.run(command, env=CLEAN | {"SCHUSS_TEST_CUDA": "gpu"}, cwd=ROOT, check=False)
    assert done.returncode == 0


# The compiler.


TARGETS = ["sm_75", "sm_80", "sm_90", "sm_100"]


def failures(units, targets):
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        return [text for text in pool.map(nvrtc_units.failure, units, targets, chunksize=16) if text]


@LINUX
def test_every_kernel_compiles():
    """Each for one architecture, in turn, so that every rule is compiled for all. Next to no local memory."""
    units = nvrtc_units.every()
    assert len(units) > 200
    assert not failures(units, [TARGETS[i % len(TARGETS)] for i in range(len(units))])


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles_for_every_architecture(target):
    units = nvrtc_units.every()
    assert not failures(units, [target] * len(units))


def operations(tree):
    """The operators and functions of a statement's tree."""
    if tree[0] in ("number", "name"):
        return set()
    return {tree[1]}.union(*(operations(part) for part in tree[2:]))


def written_in(stage):
    """The operators and functions of a stage's elements, and what its sums, which are float64, may use."""
    reductions = stage["reductions"]
    values = [value for _, _, value in stage["statements"]] + [value for *_, value in reductions]
    divided = {"div" for operation, *_ in reductions if operation == "mean"}
    return set().union(*map(operations, values)), {"add", "mul"} | divided


@LINUX
@pytest.mark.parametrize("grads", ["one dtype", pytest.param("all dtypes", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("rule", "program"), nvrtc_units.programs())
def test_compiled_code_has_only_the_operations_of_the_rule(rule, program, grads):
    """No float32 arithmetic becomes float64, and the compiler fuses or reorders no roundings."""
    nvrtc.load(99, 90)
    stages = _schuss.rule_tree(rule)["programs"][program]
    dtypes = nvrtc_units.DTYPES
    one = {param: param if param != "float64" else "float32" for param in dtypes}
    for param, grad in itertools.product(dtypes, dtypes):
        if grads == "one dtype" and grad != one[param]:
            continue
        for source in nvrtc_units.sources(rule, program, param, grad):
            ptx = _schuss.cuda_compile(source, "compute_80").decode()
            kernels = dict(re.findall(r"\.entry (\w+)\((.*?)\n}", ptx, re.DOTALL))
            assert kernels
            for name, body in kernels.items():
                assert not re.search(r"\.approx|\.ftz|\.full", body)
                number, kind = re.fullmatch(r"stage(\d+)_(\w+)", name).groups()
                if kind in ("arrays", "all"):
                    continue  # the scalars of an array, or of all, are float64
                text, sums = written_in(stages[int(number)])
                sums = set() if kind in ("elements", "numbers") else sums
                powers = "pow" in text  # computed in float64 for both types
                if param != "float64" and not powers and not sums:
                    # float64 gradients, and scalars of the device, are rounded once.
                    assert set(re.findall(r"(?<![.\w])(?!ld|st|mov)[a-z]\w*\.[\w.]*f64", body)) <= {"cvt.rn.f32.f64"}
                compute = "f64" if param == "float64" else "f32"
                used = set(re.findall(r"\b(?:div|sqrt|fma|mad|mul|add|sub|rcp|rsqrt)\.[\w.]*f(?:32|64)", body))
                allowed = {f"{operation}.rn.{compute}" for operation in ("mul", "add", "sub", "fma")}
                allowed |= {f"{operation}.rn.f64" for operation in ("mul", "add", "sub", "fma", "div") if powers}
                allowed |= {f"div.rn.{compute}", f"rcp.rn.{compute}"} if text & {"/", "pow", "atan2"} else set()
                allowed |= {f"sqrt.rn.{compute}"} if text & {"sqrt", "pow"} else set()
                allowed |= {"mul.rn.f32"} if grad == "float16" else set()  # by a power of two, as it is read
                allowed |= {f"{operation}.rn.f64" for operation in sums}
                assert used <= allowed
            # Once the rule's own fused multiply-adds are replaced, none is left: the compiler contracts nothing.
            unfused = re.sub(r"return __fmaf?_rn\(a, b, c\)", "return a * b + c", source)
            assert unfused != source and "fma." not in _schuss.cuda_compile(unfused, "compute_80").decode()
            assert "ld.local" not in ptx and "st.local" not in ptx
            assert not re.search(r"\b(?:ld|st)\.(?:v\d\.)?[fu]\d", ptx)


@LINUX
@pytest.mark.parametrize("target", TARGETS)
def test_local_memory_is_seen_in_machine_code(target):
    """That of an array whose places are only known when it runs."""
    source = "float a[64] = {}; for (int i = 0; i < 64; i++) a[k[i]] += x[i]; x[0] = a[k[64]];"
    code = nvrtc_units.compiler()(f'extern "C" __global__ void f(float* x, int* k) {{ {source} }}', target)
    assert nvrtc_units.frames(code) == {"f": 4 * 64}


@LINUX
def test_the_compiler_fuses_no_multiply_add():
    nvrtc.load(99, 90)
    source = 'extern "C" __global__ void f(float* x) { x[0] = x[1] * x[2] + x[3]; }'
    assert "fma" not in _schuss.cuda_compile(source, "compute_80").decode()


@LINUX
def test_compiler_messages_are_in_the_error():
    nvrtc.load(99, 90)
    with pytest.raises(RuntimeError, match=r"(?s)^NVRTC \d+\.\d+ for sm_90: .*nonsense.* is undefined"):
        _schuss.cuda_compile("int f() { return nonsense; }", "sm_90")


# Machines without a driver or a compiler.

ARRAY = """
class Array:
    __cuda_array_interface__ = dict(shape=(3,), typestr="<f4", data=(4096, False), strides=None, version=3)
import schuss
try:
    schuss.AdamW({"w": Array()})
except RuntimeError as error:
    print(error)
"""


@pytest.mark.skipif(has_gpu(), reason="there is a driver here")
def test_without_a_driver():
    message = run(ARRAY).stdout
    assert message.startswith("the NVIDIA driver's library (libcuda.so.1) is not on this machine: arrays on a GPU need")


EMULATED = """
import gpu
gpu.EMULATOR = None
library = gpu.build()[1]
import ctypes
gpu.EMULATOR = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
from schuss._backends import nvrtc
"""


@LINUX
@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
def test_a_driver_that_does_not_start():
    message = run(EMULATED + ARRAY, EMULATOR_BROKEN="1").stdout
    assert message.startswith("the NVIDIA driver does not start: CUDA error")


UNPREPARED = """
import schuss
from schuss import _schuss
def tell(call):
    try: return call()
    except (MemoryError, RuntimeError) as error: print(error)
at = ctypes.c_ulonglong()  # memory of another library
gpu.EMULATOR.cuCtxSetCurrent(ctypes.c_void_p(1))
gpu.EMULATOR.cuMemAlloc_v2(ctypes.byref(at), ctypes.c_size_t(12))
interface = dict(shape=(3,), typestr="<f4", data=(at.value, False), strides=None, version=3)
array = type("Array", (), {"__cuda_array_interface__": interface})()
"""
OPEN = """
gpu.fail("open")
tell(lambda: schuss.SGD(array))
print(schuss.SGD(array).step_count)
"""
UNLOADED = """
tell(lambda: _schuss.cuda_compile("", "sm_90"))
work = _schuss.CudaWork(0)
work.add_group([("sgd", 6)], [(0, at.value, "float32", 3, [], None)])
tell(lambda: work.step("step", [[0.0] * 6], [1], [], [at.value], ["float32"], 1.0, None, False, False, False, 1))
"""


@LINUX
@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
def test_a_device_that_does_not_open():
    first, second = run(EMULATED + UNPREPARED + OPEN).stdout.splitlines()
    assert first == "opening device 0: CUDA error CUDA_ERROR_OUT_OF_MEMORY (out of memory)" and second == "0"


@LINUX
@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
def test_the_extension_module_says_that_no_compiler_has_been_loaded():
    first, second = run(EMULATED + UNPREPARED + UNLOADED).stdout.splitlines()
    assert first == "NVRTC has not been loaded" and second == "NVRTC, the CUDA compiler, has not been loaded"


@LINUX
@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
def test_without_a_compiler(tmp_path):
    nowhere = "nvrtc._loaded = nvrtc._in_wheels = nvrtc._in_toolkits = lambda: []\nnvrtc._NAMES = ('libnone.so.13',)\n"
    message = run(EMULATED + nowhere + ARRAY).stdout
    assert "NVRTC, the CUDA compiler, was not found" in message
    assert "pip install nvidia-cuda-nvrtc, " in message and "SCHUSS_NVRTC" in message
    message = run(EMULATED + ARRAY, SCHUSS_NVRTC=str(tmp_path / "no.so")).stdout
    assert message.startswith("SCHUSS_NVRTC names no NVRTC that can be used: ") and "no.so" in message


@LINUX
@pytest.mark.parametrize(
    ("newest", "arch", "advice", "why"),
    [
        (
            11,
            90,
            "the NVIDIA driver is for CUDA 11, and the CUDA compiler of pip needs 12: update the driver",
            "newer than the driver",
        ),
        (99, 10, "pip install nvidia-cuda-nvrtc-cu12, ", "too new for sm_10"),
    ],
)
def test_a_compiler_too_new_for_the_driver_or_the_device(newest, arch, advice, why):
    script = (
        "from schuss._backends import nvrtc\n"
        f"try: nvrtc.load({newest}, {arch})\nexcept RuntimeError as e: print(e, e.__cause__, sep='\\n')"
    )
    first, second = run(script).stdout.strip().split("\n")
    assert advice in first
    assert re.search(rf"is version \d+, {why}", second)


@LINUX
@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
def test_a_device_that_is_too_old():
    script = EMULATED + "import schuss\ntry: schuss._schuss.CudaBlock(0, 8, False)\nexcept RuntimeError as e: print(e)"
    assert run(script, EMULATOR_MAJOR="6").stdout == "device 0 has compute capability 6.0; schuss needs 7.0 or more\n"


def test_import_loads_nothing_of_cuda():
    script = (
        "import sys, numpy, schuss; schuss.SGD(numpy.ones(3)).step(numpy.ones(3));"
        "assert not any('cuda' in m or 'gpu' in m for m in sys.modules if m.startswith('schuss'));"
        "maps = open('/proc/self/maps').read() if sys.platform == 'linux' else '';"
        "print('libcuda' in maps or 'nvrtc' in maps)"
    )
    assert run(script).stdout.strip() == "False"


def test_a_build_without_cuda(monkeypatch):
    from schuss._backends import cuda_arrays

    monkeypatch.delattr(_schuss, "CudaWork")
    cuda_arrays.prepare.cache_clear()
    with pytest.raises(RuntimeError, match="this build of schuss has no CUDA"):
        cuda_arrays.prepare()
    assert schuss.OPTIMIZERS
