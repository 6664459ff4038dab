#!/usr/bin/env bash
# Runs tests under sanitizers: sanitize.sh [FOLDER]. All that it makes is in FOLDER. Needs a Rust of rustup, which has their runtime
# libraries, and gcc for the one that Python is started with.
# PARTS, all by default:
#   crate      the crate's tests under AddressSanitizer, all or what TESTS, arguments of `cargo test`, chooses;
#   extension  tests/unit under AddressSanitizer, with the Python of PYTHON and its packages;
#   races      the crate's tests under ThreadSanitizer, which also instruments the standard library: its source is the component
#              rust-src of the Rust in use or, without that, Debian's package, with Debian's compiler;
#   threads    tests of the extension module under ThreadSanitizer, which sees Python's locks, but nothing else of Python.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/machines/debian.sh
folder=$(realpath -m "${1:-build/machines/sanitize}")
mkdir -p "$folder"
target=x86_64-unknown-linux-gnu # named, so that build scripts and macros are not instrumented
export RUSTC_BOOTSTRAP=1 # the options below are for nightly compilers otherwise
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 CARGO_PROFILE_RELEASE_OPT_LEVEL=1
export CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_STRIP=none # for the reports

# Reports of the runtime libraries are not for pytest to keep.
pytest="${PYTHON:-.venv/bin/python} -m pytest -p no:cacheprovider --capture=sys"

# Without TESTS, of the longest file, same_bits, those that differ most in what their threads do.
tests_of_the_crate() { # OPTIONS...
    local run="cargo test --locked --release --target $target -p schuss $*"
    if [ -n "${TESTS:-}" ]; then
        $run $TESTS
    else
        $run --lib --test look_ahead --test optimizer --test sharded
        $run --test same_bits -- every_number_of_threads the_sum_of_squares
    fi
}

build_the_extension() { # OPTIONS...
    cargo build --locked --release --target $target -p schuss-python "$@"
    rm -rf "$folder/site"
    mkdir -p "$folder/site"
    cp -r python/schuss "$folder/site"
    rm -f "$folder"/site/schuss/*.so
    cp "$CARGO_TARGET_DIR/$target/release/lib_schuss.so" "$folder/site/schuss/_schuss.abi3.so"
    export PYTHONPATH=$folder/site
}

address() {
    export CARGO_TARGET_DIR=$folder/address RUSTFLAGS=-Zsanitizer=address
    # A step that finds too little memory fails in an orderly way, and tests ask for that.
    export ASAN_OPTIONS=allocator_may_return_null=1
}

crate() {
    address
    TESTS=${TESTS:---lib --tests} tests_of_the_crate
}

extension() {
    address
    build_the_extension
    # Python frees little of its own memory at exit, so leaks are not looked for.
    export ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0
    LD_PRELOAD=$(cc -print-file-name=libasan.so) PYTHONMALLOC=malloc \
        $pytest -n auto --maxprocesses 4 --dist worksteal tests/unit
}

thread() {
    local runtime
    if [ ! -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ]; then
        [ -e "$folder/root" ] || unpack_debian "$folder" rustc rust-src
        runtime=$(ls "$(rustc --print sysroot)"/lib/rustlib/$target/lib/librustc-*_rt.tsan.a)
        ln -sf "$runtime" "$folder/root/usr/lib/rustlib/$target/lib/librustc-stable_rt.tsan.a"
        rustc_of_debian "$folder"
    fi
    export CARGO_TARGET_DIR=$folder/thread RUSTFLAGS=-Zsanitizer=thread
    # A long history, since known reads are told by their stacks.
    export TSAN_OPTIONS="history_size=7 external_symbolizer_path=$(command -v addr2line)"
}

races() {
    thread
    tests_of_the_crate -Zbuild-std
}

threads() {
    thread
    build_the_extension -Zbuild-std
    # Functions that gcc's runtime library has under other names only.
    cc -O1 -fno-builtin -shared -fPIC -x c -o "$folder/names.so" - <<'EOF'
#include <string.h>
void *__tsan_memcpy(void *to, const void *from, size_t n) { return memcpy(to, from, n); }
void *__tsan_memmove(void *to, const void *from, size_t n) { return memmove(to, from, n); }
void *__tsan_memset(void *to, int byte, size_t n) { return memset(to, byte, n); }
EOF
    # The loader frees a thread's variables after the thread's own last write, by a lock that the runtime does not see.
    # NumPy reads arrays for `copy` and `pickle` beside steps; such a copy is refused afterwards. No other race with NumPy's
    # copies of arrays is seen therefore.
    printf "race:%s\n" _dl_deallocate_tls _contig_to_contig >"$folder/known.txt"
    export TSAN_OPTIONS="$TSAN_OPTIONS suppressions=$folder/known.txt"
    # Without random addresses, which the runtime cannot have everywhere.
    setarch "$(uname -m)" --addr-no-randomize env "LD_PRELOAD=$(cc -print-file-name=libtsan.so) $folder/names.so" \
        $pytest tests/unit/test_{garbage,seeing,stepping}.py tests/system/test_{threads,flush_to_zero}.py
}

for part in ${PARTS:-crate extension races threads}; do ("$part"); done
