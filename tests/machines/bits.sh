#!/usr/bin/env bash
# Compares lines that tests/support/bits.py has printed with those recorded on x86-64 at the baseline level: bits.sh FILE.
set -euo pipefail
lines=$(grep --extended-regexp '^[0-9a-f]{16} ' "$1")
different=$(grep --invert-match --line-regexp --fixed-strings --file="$(dirname "$0")/../data/bits.txt" <<<"$lines" || true)
echo "$(wc -l <<<"$lines") lines of bits.py; those not as recorded: ${different:-none}"
[ -z "$different" ]
