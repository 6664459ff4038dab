#!/usr/bin/env bash
# Runs the AVX-512 kernels on a CPU that has AVX-512: compares all lines of tests/support/bits.py, with one, two and three threads,
# with those recorded at the baseline level, and runs the crate's unit tests and its tests of bits, which compare all levels that
# the CPU has. PYTHON is one with the package and what its tests need.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
folder=build/machines/avx512
mkdir -p "$folder"
export SCHUSS_CPU=avx512 # on other CPUs an error names the levels that they have
for threads in 1 2 3; do
    SCHUSS_NUM_THREADS=$threads "$python" tests/support/bits.py >"$folder/$threads.txt"
    head -n 1 "$folder/$threads.txt"
    tests/machines/bits.sh "$folder/$threads.txt"
done
cargo test --locked -p schuss --lib --test same_bits
