#!/usr/bin/env bash
# Builds for aarch64, and runs that under qemu-user: arm.sh [FOLDER]. All that it makes is in FOLDER, but for packages that cargo
# downloads.
# PARTS, all by default:
#   build  the wheel, and the vector instructions in it; with a Python without the GIL in INTERPRETERS, which is this machine's,
#          also the wheel for that;
#   bare   the wheel in an environment of its own, installed by pip under the emulator, and the README's lines; with Pythons for
#          aarch64 in PYTHONS, also in one of each of these;
#   bits   every line of tests/support/bits.py, compared with those recorded on x86-64. BITS holds arguments of that script:
#          `sampled` leaves out most lines, START:STOP:STEP takes a slice, so that a run can be continued;
#   crate  the crate's tests, which take hours: TESTS, arguments of `cargo test`, chooses some.
# Compiler, standard library, emulator and Python are Debian's; zig links.
set -euo pipefail
shopt -s inherit_errexit # also within $(…)
cd "$(dirname "$0")/../.."
. tests/machines/debian.sh
folder=$(realpath -m "${1:-build/machines/arm}")
target=aarch64-unknown-linux-gnu
mkdir -p "$folder"
export XDG_CACHE_HOME=$folder/cache # of pip and zig

if [ ! -e "$folder/.unpacked" ]; then
    unpack_debian "$folder" rustc libstd-rust-dev:arm64 qemu-user binutils-aarch64-linux-gnu python3:arm64
    touch "$folder/.unpacked"
fi
rustc_of_debian "$folder"
version=$(basename "$(readlink "$folder/root/usr/bin/python3")")
[ -d "$folder/venv" ] || "${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --upgrade "pip>=25.1" "maturin[zig]>=1.9,<2" cargo-zigbuild
[ -d "$folder/site" ] || "$folder/venv/bin/pip" install --quiet --target "$folder/site" --only-binary=:all: \
    --platform manylinux_2_28_aarch64 --python-version "${version#python}" numpy ml_dtypes pytest

export PATH=$folder/venv/bin:$PATH CARGO_TARGET_DIR=$folder/target
emulator="$folder/root/usr/bin/qemu-aarch64 -L $folder/root"
debian=$folder/root/usr/bin/$version

build() {
    # By their names: a Python that runs here would give the extension module the suffix of this machine.
    local names wheel
    names=$(for python in ${INTERPRETERS:-python3}; do
        "$python" -c 'import sys; print(f"python{sys.version_info[0]}.{sys.version_info[1]}{sys.abiflags}")'
    done)
    rm -rf "$folder/wheels"
    maturin build --release --locked --zig --target $target --out "$folder/wheels" --interpreter $names
    for wheel in "$folder"/wheels/*.whl; do
        if ! "$folder/venv/bin/python" -m zipfile -l "$wheel" | grep '_schuss\.\(abi3\|.*-aarch64-linux-gnu\)\.so '; then
            echo "the extension module in $wheel is not for aarch64; take $names off the PATH"
            exit 1
        fi
    done
    "$folder/venv/bin/python" -m zipfile -e "$folder"/wheels/*abi3*.whl "$folder/site"

    local libraries="$folder/root/usr/lib/x86_64-linux-gnu" wanted count
    "$folder/root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" "$folder/root/usr/bin/aarch64-linux-gnu-objdump" \
        --disassemble --no-show-raw-insn "$folder/site/schuss/_schuss.abi3.so" >"$folder/disassembly.txt"
    for wanted in 'fmla\s+v.*2d' 'fmul\s+v.*4s' 'fdiv\s+v.*4s' 'fsqrt\s+v.*4s' 'prfm\s+pldl1keep'; do
        count=$(grep --count --extended-regexp "$wanted" "$folder/disassembly.txt") # fails without any
        echo "$count instructions $wanted"
    done
}

bare() {
    # The emulated Python starts no processes, so venv cannot give it a pip.
    local pip python bare="$emulator $folder/bare/bin/python"
    pip=$("$folder/venv/bin/python" -c 'import pip; print(pip.__path__[0])')
    for python in "$debian" ${PYTHONS:-}; do
        $emulator "$python" -m venv --clear --without-pip "$folder/bare"
        $bare -W ignore "$pip" install --only-binary=:all: numpy
        $bare -W ignore "$pip" install --no-index --find-links "$folder/wheels" schuss
        $bare tests/support/readme.py
    done
}

bits() {
    export SCHUSS_NUM_THREADS=2 PYTHONPATH=$folder/site:tests/support
    $emulator "$debian" -u tests/support/bits.py ${BITS:-} >"$folder/bits.txt"
    tests/machines/bits.sh "$folder/bits.txt"
}

crate() {
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$emulator
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
    cargo-zigbuild test --locked --release --target $target -p schuss ${TESTS:-}
}

for part in ${PARTS-build bare bits crate}; do ("$part"); done
