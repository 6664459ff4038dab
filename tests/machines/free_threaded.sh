#!/usr/bin/env bash
# Runs the tests on a CPython without the GIL: free_threaded.sh [FOLDER]. All that it makes is in FOLDER.
# Builds that Python from Debian's source package, with the machine's apt-get and C compiler, or from SOURCE, an archive; or takes
# FREE_THREADED, such a Python. PYTHON's pip installs packages.
# The package declares that it needs the GIL; PYTHON_GIL=0 keeps it off all the same.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/machines/debian.sh
folder=$(realpath -m "${1:-build/free-threaded}")
version=${VERSION:-3.14} # PyO3 supports 3.14 and later
python=${FREE_THREADED:-$folder/python/bin/python${version}t}
mkdir -p "$folder"

older() { # VERSION
    local pool
    pool=$(apt-get indextargets --format '$(REPO_URI)' | head -n 1)pool/main/p/python$version
    for ((patch = ${1##*.}; patch >= 0; patch--)); do
        local name=python${version}_$version.$patch.orig.tar.xz
        /usr/lib/apt/apt-helper download-file "$pool/$name" "$folder/$name" && return
    done
    echo "the mirror has no source of Python $version; name one in SOURCE" >&2
    return 1
}

download() {
    folder_of_apt "$folder/apt"
    # The index may name sources that the mirror no longer has, or not yet; then the newest older one that it has is taken.
    for release in $(apt-cache showsrc "python$version" | awk '/^Version:/ {print $2}' | sort --reverse --version-sort); do
        (cd "$folder" && apt-get -q source --download-only --tar-only --only-source "python$version=$release") && break
    done || older "${release%-*}"
    SOURCE=$(ls "$folder/python${version}"_*.orig.tar.* | tail -n 1)
    unset APT_CONFIG
}

if [ ! -x "$python" ]; then
    [ -n "${SOURCE:-}" ] || download
    mkdir -p "$folder/source"
    tar xf "$SOURCE" -C "$folder/source" --strip-components=1
    (cd "$folder/source" && ./configure --quiet --disable-gil --prefix="$folder/python" && make -s -j "$(nproc)" && make -s install)
fi
[ -d "$folder/venv" ] || "$python" -m venv --without-pip "$folder/venv" # Debian's Python cannot install pip
install() { "${PYTHON:-python3}" -m pip --python "$folder/venv" install --quiet "$@"; }
# Without packages that would be compiled; tests whose packages have no wheel for this Python cannot be collected.
for package in numpy ml_dtypes pytest pytest-xdist hypothesis sympy safetensors mpi4py mpich nvidia-cuda-nvrtc maturin; do
    install --only-binary=:all: $package || echo "$package has no wheel"
done
rm -rf "$folder/wheels"
VIRTUAL_ENV=$folder/venv "$folder/venv/bin/maturin" build --release --locked --out "$folder/wheels" --interpreter "$folder/venv/bin/python"
install --force-reinstall --no-deps "$folder"/wheels/*.whl
export PYTHON_GIL=0
"$folder/venv/bin/python" -c 'import sys, schuss; assert not sys._is_gil_enabled(), "the GIL is on"'
exec "$folder/venv/bin/python" -X faulthandler -m pytest -n auto --maxprocesses 4 --dist worksteal \
    --continue-on-collection-errors --doctest-ignore-import-errors tests --pyargs schuss
