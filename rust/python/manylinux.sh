#!/usr/bin/env bash
# A linker for wheels that run with glibc 2.17 and later: zig's, which knows that library, and then Rust's lld with the same
# arguments, since zig's refuses to put similar functions next to each other (see build.rs). For this machine's architecture.
set -euo pipefail
sorted=-Wl,--bp-compression-sort=function
given=() sorts=()
for argument; do
    if [ "$argument" = "$sorted" ]; then sorts=("${sorted#-Wl,}"); else given+=("$argument"); fi
done
host=$(rustc --print host-tuple)
# The last line of ld.lld's is this link; a first use of zig may link libraries of its own before.
log=$(ZIG_VERBOSE_LINK=1 maturin zig cc -- -target "${host%%-*}-linux-gnu.2.17" "${given[@]}" 2>&1) || { echo "$log" >&2; exit 1; }
[ "${#sorts[@]}" -gt 0 ] || exit 0
"$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld" -flavor gnu $(sed -n 's/^ld\.lld //p' <<<"$log" | tail -n 1) "${sorts[@]}"
