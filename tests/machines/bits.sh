#!/usr/bin/env bash
# Compares lines that tests/support/bits.py has printed with those recorded on x86-64 at the baseline level: bits.sh FILE.
set -euo pipefail
lines=$(grep --extended-regexp '^[0-9a-f]{16} ' "$1")
recorded=$(dirname "$0")/../data/bits.txt
different=$(grep --invert-match --line-regexp --fixed-strings --file="$recorded" <<<"$lines" || true)
echo "$(wc -l <<<"$lines") lines of bits.py, $(grep --count '^[0-9a-f]* ' "$recorded") recorded; not as recorded: ${different:-none}"
[ -z "$different" ]
