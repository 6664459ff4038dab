"""Changes the crate of kernels at one place at a time, and tells which changes no test notices.

    python tests/mutants/kernels.py [COUNT] [SEED]

The changes are a random sample of those that cargo-mutants lists. Since a build takes minutes, one has them all: each
function has its text once more for every change of it, and the variable MUTANT says which of them runs. A change of a
constant cannot be made so and is left out, and so is one that does not compile. The tests are those of the crate, each
by itself, but those that take minutes, and the ones of Python that compare with recorded bits or are about missing
gradients, quantized states, rows, single arrays, threads, memory and MPI. The quickest run first.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

from mutants import ROOT, SECONDS, first_outcome, outcome

PARTS = ["rule", "numeric", "exec"]
SOURCES = "rust/kernels/src"
# Warnings and lints are about code that is wrong on purpose.
CARGO = ["cargo", "--config", 'build.rustflags=["--cap-lints=allow"]']
PACKAGES = ["--locked", "-p", "schuss", "-p", "schuss-python", "--message-format=json"]
# Of the crate's tests these take minutes; the recorded bits show the same.
LONG = re.compile("every_rule_gives|every_level_gives|every_number_of|so_do_quantized|gradients_that_are_zeroed")
PYTHON = [
    "conformance/test_same_bits.py -k 'best_level or same_sums'",
    "unit/test_{missing_gradients,small_state,rows,stepping}.py",
    "system/test_{threads,flush_to_zero,memory_limits,mpi}.py",
]

CHOICE = """
static mut MUTANT: usize = 0;

/// Whether this change runs. Not an atomic number: loops over elements would no longer be vectorized.
#[inline(always)]
pub(crate) fn mutant(number: usize) -> bool {
    // SAFETY: written before `main` only.
    unsafe { MUTANT == number }
}

extern "C" fn choose() {
    // SAFETY: no other thread runs yet.
    unsafe { MUTANT = std::env::var("MUTANT").map_or(0, |number| number.parse().unwrap()) }
}

#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE: extern "C" fn() = choose;
"""


def output(*command):
    """What a command prints."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def listed():
    """All changes of functions, as cargo-mutants describes them."""
    files = [word for part in PARTS for word in ("--file", f"{SOURCES}/{part}/**")]
    return [
        change for change in json.loads(output("cargo", "mutants", "--list", "--json", *files)) if change["function"]
    ]


def woven(text, changes):
    """The text of a file whose functions are as the variable says, except constant ones, which stay as they are."""
    starts = list(accumulate(map(len, text.splitlines(keepends=True)), initial=0))

    def extent(span):
        return tuple(starts[span[end]["line"] - 1] + span[end]["column"] - 1 for end in ("start", "end"))

    outer = sorted({extent(change["function"]["span"]) for change in changes.values()})
    for start, end in reversed(outer):
        first = text.index("{", start)
        mine = {number: extent(change["span"]) for number, change in changes.items()}
        mine = {number: (left, right) for number, (left, right) in mine.items() if first < left and right < end}
        if "const fn" in text[start:first] or any(a < start and end < b for a, b in outer):
            continue
        bodies = [
            f"if crate::mutant({number}) {text[first:left]}{changes[number]['replacement']}{text[right:end]}\nelse "
            for number, (left, right) in mine.items()
        ]
        text = f"{text[:first]}{{\n{''.join(bodies)}{text[first:end]}\n}}{text[end:]}"
    return text


def cargo(folder, *words):
    """What cargo says, as a list of messages, and whether it succeeds."""
    done = subprocess.run([*CARGO, *words, *PACKAGES], cwd=folder, check=False, stdout=subprocess.PIPE)
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode == 0


def weave(folder, changes):
    """Writes the changes into the crate in this folder; returns those that compile."""
    paths = {change["file"] for change in changes.values()}
    while True:
        for path in paths:
            of_file = {number: change for number, change in changes.items() if change["file"] == path}
            (folder / path).write_text(woven((ROOT / path).read_text(), of_file))
        written = "".join((folder / path).read_text() for path in paths)
        changes = {number: change for number, change in changes.items() if f"mutant({number})" in written}
        messages, good = cargo(folder, "check")
        if good:
            return changes
        spans = [span for message in messages for span in message.get("message", {}).get("spans", [])
                 if span["is_primary"] and message["message"]["level"] == "error"]  # fmt: skip
        if not spans:
            sys.exit("".join(message["message"]["rendered"] for message in messages if "message" in message))
        for span in spans:
            before = "".join((folder / span["file_name"]).read_text().splitlines(keepends=True)[: span["line_end"]])
            changes.pop(int(re.findall(r"crate::mutant\((\d+)\)", before)[-1]), None)


def build(folder, count, seed):
    """Builds the tests and the extension module in a copy of the repository; the changes in it, and the tests."""
    for name in output("git", "ls-files").splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    with (folder / SOURCES / "lib.rs").open("a") as lib:
        lib.write(CHOICE)
    places = listed()
    sample = random.Random(seed).sample(places, count)
    changes = weave(folder, dict(enumerate(sample, 1)))
    print(f"{len(places)} places, seed {seed}: of {count}, {len(changes)} can be built", flush=True)
    messages, _ = cargo(folder, "test", "--no-run")
    programs = [
        built["executable"]
        for built in messages
        if built.get("executable") and built["profile"]["test"] and "kernels" in built["manifest_path"]
    ]
    messages, _ = cargo(folder, "build")
    (module,) = (name for message in messages for name in message.get("filenames", []) if name.endswith("_schuss.so"))
    shutil.copy(module, folder / "python" / "schuss" / "_schuss.abi3.so")
    return changes, programs


def timed(commands, env):
    """The commands, the quickest first, each with the seconds after which it is taken to be endless."""
    seconds = {}
    for command in commands:
        before = time.monotonic()
        if outcome(command, env, 4 * SECONDS):
            sys.exit(f"fails without a change: {command}")
        seconds[command] = time.monotonic() - before
    return [(command, 30 + 5 * int(seconds[command])) for command in sorted(seconds, key=seconds.get)]


def main(count=60, seed=0):
    """Prints a line for each change, and how many were noticed."""
    folder = Path(tempfile.mkdtemp(prefix="schuss-mutants-"))
    changes, programs = build(folder, count, seed)
    env = os.environ | {"PYTHONPATH": f"{folder}/python:{Path(__file__).parent}", "PYTHONDONTWRITEBYTECODE": "1"}
    lists = [(program, output(program, "--list").splitlines()) for program in programs]
    names = [
        f"{program} --exact {line[:-6]}"
        for program, lines in lists
        for line in lines
        if line.endswith(": test") and not LONG.search(line)
    ]
    commands = [f"ulimit -S -v 16000000; cd {folder}/rust/kernels && {name}" for name in names]
    pytest = f"ulimit -S -v 16000000; cd tests && {sys.executable} -m pytest -x -q -p no:cacheprovider -p mutants"
    tests = timed([*commands, *(f"{pytest} {files}" for files in PYTHON)], env)
    lived = 0
    for number, change in changes.items():
        found = first_outcome(tests, env | {"MUTANT": str(number)})
        lived += found == "LIVES"
        print(f"{found}: {change['name'].removeprefix(SOURCES)}", flush=True)
    print(f"{len(changes) - lived} of {len(changes)} changes noticed")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
