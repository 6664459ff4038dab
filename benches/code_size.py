"""Machine code by rule: builds the extension module with symbols, and adds up the functions of each rule.

    python benches/code_size.py [arguments of cargo build ...]

The symbols of kernels contain rule and CPU level. Other functions are listed by crate, and by module for our own
crates. It needs binutils' nm and an ELF file.
"""

import argparse
import collections
import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "code-size"
CODE = "tTwW"
KERNEL = re.compile(r"schuss::kernel::(\w+)::kernel::<")
OWNER = re.compile(r"schuss::optimizers::\w+::(?:host_of_|text_of_)?(\w+)")
MODULE = re.compile(r"\b(schuss(?:::\w+)?|[a-z_]\w*)::")
OTHER = "other"
SHOWN = 15  # rows of functions that belong to no rule


def build(arguments):
    """Builds the extension module with symbols that include the parameters of generic functions."""
    command = ["cargo", "build", "--release", "--locked", "-p", "schuss-python", "--target-dir", TARGET, *arguments]
    flags = f"{os.environ.get('RUSTFLAGS', '')} -C symbol-mangling-version=v0".strip()
    env = os.environ | {"CARGO_PROFILE_RELEASE_STRIP": "none", "RUSTFLAGS": flags}
    subprocess.run(command, check=True, cwd=ROOT, env=env)
    return TARGET / "release" / "lib_schuss.so"


def functions(library):
    """(name, bytes) of every function."""
    command = ["nm", "--print-size", "--defined-only", "--demangle=rust", library]
    lines = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()
    parts = [line.split(maxsplit=3) for line in lines]
    return [(own[3], int(own[1], 16)) for own in parts if len(own) == 4 and own[2] in CODE]


def load(library):
    """Imports the built module, which lists its rules."""
    loader = importlib.machinery.ExtensionFileLoader("_schuss", str(library))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("_schuss", loader))
    loader.exec_module(module)
    return module


def rule_of(rule_tree, name):
    """The rule of a kernel's name, which is followed by program and number: ``adam_step_0``."""
    words = name.split("_")
    starts = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
    return next((start for start in starts if rule_tree(start) is not None), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, arguments = parser.parse_known_args()
    library = build(arguments)
    rule_tree = load(library).rule_tree
    by_rule, others = collections.defaultdict(collections.Counter), collections.Counter()
    for name, size in functions(library):
        owner, level = OWNER.search(name), KERNEL.search(name)
        rule = owner and rule_of(rule_tree, owner[1])
        if rule:
            by_rule[rule][level[1] if level else OTHER] += size
        else:
            found = MODULE.search(name)
            others[found[1] if found else "C and the linker's"] += size
    levels = sorted({level for own in by_rule.values() for level in own}, key=lambda level: (level == OTHER, level))
    table = [["rule", *levels, "bytes"]]
    for rule, own in sorted(by_rule.items(), key=lambda item: -item[1].total()):
        table.append([rule, *(f"{own[level]:,}" for level in levels), f"{own.total():,}"])
    total = sum((own for own in by_rule.values()), collections.Counter())
    table.append(["all rules", *(f"{total[level]:,}" for level in levels), f"{total.total():,}"])
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        print(row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:])), sep="  ")
    print("\nwhat no rule owns")
    for name, size in others.most_common(SHOWN):
        print(f"{size:>11,}  {name}")
    print(f"{sum(others.values()):>11,}  in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
