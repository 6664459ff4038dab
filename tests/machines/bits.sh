#!/usr/bin/env bash
# Compares lines that tests/support/bits.py has printed with those recorded on x86-64 at the baseline level: bits.sh FILE.
# Without BITS, which chooses lines, none may be missing.
set -euo pipefail
lines=$(grep --extended-regexp '^[0-9a-f]{16} ' "$1")
recorded=$(dirname "$0")/../data/bits.txt
all=$(grep --count '^[0-9a-f]* ' "$recorded")
count=$(wc -l <<<"$lines")
different=$(grep --invert-match --line-regexp --fixed-strings --file="$recorded" <<<"$lines" || true)
echo "$count lines of bits.py, $all recorded; not as recorded: ${different:-none}"
[ -z "$different" ] && { [ -n "${BITS:-}" ] || [ "$count" = "$all" ]; }
