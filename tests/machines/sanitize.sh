#!/usr/bin/env bash
# Runs tests under AddressSanitizer: sanitize.sh [FOLDER]. All that it makes is in FOLDER. Needs a Rust of rustup, which has the
# runtime library, and gcc for the one that Python is started with.
# PARTS: `crate`, the crate's tests, of which TESTS, arguments of `cargo test`, chooses others; `extension`, tests of the extension
# module with the Python of PYTHON and its packages. Both by default.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(realpath -m "${1:-build/machines/address}")
mkdir -p "$folder"
target=x86_64-unknown-linux-gnu # named, so that build scripts and macros are not instrumented
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$folder/target # the options below are for nightly compilers otherwise
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 CARGO_PROFILE_RELEASE_OPT_LEVEL=1
export CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_STRIP=none # for the reports
export RUSTFLAGS=-Zsanitizer=address
# A step that finds too little memory fails in an orderly way, and tests ask for that.
export ASAN_OPTIONS=allocator_may_return_null=1

crate() {
    cargo test --locked --release --target $target -p schuss ${TESTS:---lib --test look_ahead --test optimizer --test sharded}
}

extension() {
    cargo build --locked --release --target $target -p schuss-python
    rm -rf "$folder/site"
    mkdir -p "$folder/site"
    cp -r python/schuss "$folder/site"
    cp "$CARGO_TARGET_DIR/$target/release/lib_schuss.so" "$folder/site/schuss/_schuss.abi3.so"
    # Python frees little of its own memory at exit, so leaks are not looked for.
    export ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0
    LD_PRELOAD=$(cc -print-file-name=libasan.so) PYTHONMALLOC=malloc PYTHONPATH=$folder/site "${PYTHON:-.venv/bin/python}" \
        -m pytest -p no:cacheprovider tests/unit/test_{arrays,garbage,packing,seeing,stepping}.py
}

for part in ${PARTS:-crate extension}; do "$part"; done
