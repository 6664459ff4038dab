#!/usr/bin/env bash
# Runs the tests of the GPU and benches/cuda.py on a machine with an NVIDIA GPU, which needs no network: gpu.sh [FOLDER]. All that
# it makes is in FOLDER, build/machines/gpu by default.
# PARTS, all but `pack` by default:
#   pack     on a machine with a network and the same kind of CPU: wheels of the package and its tests' needs, in FOLDER/wheels,
#            which is to be copied to the machine with the GPU. They are for the Python of VERSION, 3.12 by default. WHEEL, one that
#            `make wheels` made, is the package's; without it one is built as for this machine;
#   install  an environment of those wheels beside the packages of PYTHON, which needs pip. NVRTC, the compiler, is that of PyTorch
#            or of a toolkit, or else the one among the wheels; SCHUSS_NVRTC names another;
#   bits     the tests, in JOBS processes, which compile the kernels that they run. TESTS, arguments of pytest, chooses others:
#            `tests/cuda -m slow` has the cases that are left out by default;
#   bench    the benchmark, with BENCH, its arguments; PyTorch too, if PYTHON has it.
# By default all of it takes at most ten minutes on 16 cores: `bits` and `bench` are stopped after LIMIT seconds, and what comes
# after a part that fails or is stopped runs all the same. SCHUSS_TEST_CUDA=emulator rehearses all of it without a GPU, with few
# TESTS, few elements in BENCH, and a PyTorch that does nothing.
set -euo pipefail
shopt -s inherit_errexit # also within $(…)
cd "$(dirname "$0")/../.."
folder=$(realpath -m "${1:-build/machines/gpu}")
python=${PYTHON:-python3}
wheels=$folder/wheels
own=$folder/venv/bin/python
mkdir -p "$folder"
export SCHUSS_TEST_CUDA=${SCHUSS_TEST_CUDA:-gpu} SCHUSS_CUDA_CACHE=$folder/kernels PYTHONPATH=tests/support

pack() {
    local size
    rm -rf "$wheels"
    mkdir -p "$wheels"
    if [ -n "${WHEEL:-}" ]; then
        cp "$WHEEL" "$wheels"
    else
        [ -d "$folder/tools" ] || "$python" -m venv "$folder/tools"
        "$folder/tools/bin/pip" install --quiet "maturin>=1.9,<2"
        "$folder/tools/bin/maturin" build --release --locked --out "$wheels" --interpreter "$python"
    fi
    "$python" -m pip download --quiet --dest "$wheels" --only-binary=:all: --python-version "${VERSION:-3.12}" \
        --platform "manylinux_2_28_$(uname -m)" --platform "manylinux_2_27_$(uname -m)" --platform "manylinux2014_$(uname -m)" \
        numpy ml_dtypes pytest pytest-xdist "nvidia-cuda-nvrtc-cu12==12.6.*" # 23 MB; later ones have 45 and more
    size=$(du --summarize --block-size=1M "$wheels" | cut -f 1)
    echo "$size MiB of wheels"
}

install() {
    [ -d "$wheels" ] || { echo "there is no $wheels: PARTS=pack makes it on a machine with a network" >&2; exit 1; }
    # PYTHON may be an environment itself, whose packages --system-site-packages would leave out.
    "$python" -m venv --clear --without-pip "$folder/venv"
    "$python" -c 'import sys; print(*(path for path in sys.path if path.endswith("-packages")), sep="\n")' \
        >"$("$own" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
    add() { "$python" -m pip --python "$folder/venv" install --quiet --no-index --find-links "$wheels" "$@"; }
    add --force-reinstall --no-deps schuss
    add numpy ml_dtypes pytest pytest-xdist
    "$own" -c 'from schuss._backends import nvrtc; nvrtc.load(99)' 2>/dev/null || add nvidia-cuda-nvrtc-cu12
    "$own" -c 'from schuss._backends import nvrtc; print("NVRTC", nvrtc.load(99))'
}

bits() {
    nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || true
    # Without plugins that PYTHON happens to have: their warnings would be errors. INT to pytest alone, which says what failed.
    export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 SCHUSS_NUM_THREADS=1
    timeout --foreground --signal INT --kill-after 30 "${LIMIT:-400}" "$own" -m pytest -p xdist -p no:cacheprovider \
        --numprocesses auto --maxprocesses "${JOBS:-16}" --dist worksteal ${TESTS:-tests/cuda}
}

bench() {
    timeout --kill-after 10 "${LIMIT:-100}" "$own" tests/support/gpu.py benches/cuda.py ${BENCH:-}
}

failed=
run() { # PART; the next ones run also if it fails
    local start=$SECONDS code
    set +e
    (set -e; "$1")
    code=$?
    set -e
    echo "$1: $((SECONDS - start)) seconds, exit status $code"
    [ $code = 0 ] || failed+=" $1"
}

for part in ${PARTS-install bits bench}; do run "$part"; done
[ -z "$failed" ]
