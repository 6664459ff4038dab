"""Changes the package at one place at a time, and tells which changes no test notices.

    python tests/mutants/mutants.py [COUNT] [SEED]

The places are a random sample of those in python/schuss/_core. The tests run on a copy in a temporary folder. A mutant
that lives either changes nothing that a user can see, or shows what a test misses. QUICK=1 leaves out the tests that
seldom find more.
"""

import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 1800  # a mutant that takes longer has made an endless loop
# Of tests with more cases, all runs but the last take some.
FIRST = 60
TESTS = [
    "unit/test_{wrong_calls,declarations,stepping,resume,copies,scheduled_hyperparameters}.py",
    "unit/test_{seeing,missing_gradients,checkpoint,checkpoint_files,steps,nonfinite,arrays,rows}.py",
    "unit/test_{small_state,garbage,moving_arrays,averages,nag}.py",
    "unit conformance/test_conformance.py system/test_{threads,flush_to_zero,memory_limits}.py",
]

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}


def other(node):
    """The node that replaces this one, if any does."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            return ast.Compare(node.left, [COMPARISONS[type(op)]()], node.comparators)
        case ast.BoolOp():
            return ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not()):
            return node.operand
        case ast.BinOp() if type(node.op) in OPERATORS:
            return ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        case ast.Constant(value=bool()):
            return ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            return ast.Constant(node.value + 1)
        case ast.IfExp():
            return ast.IfExp(node.test, node.orelse, node.body)
        case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant):
            return ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Delete() | ast.Assign(targets=[ast.Attribute()]):
            return ast.Pass()
    return None


def executed(node):
    """All nodes below this one, but annotations and what type checkers alone read."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") or "TYPE_CHECKING" in ast.dump(getattr(node, "test", ast.Pass())):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from executed(child)


def mutants(text):
    """The mutants of a module: line, what is changed, and the module's new text."""
    tree = ast.parse(text)
    for node in executed(tree):
        new = other(node)
        if new is None:
            continue
        line, what = node.lineno, f"{ast.unparse(node)}  ->  {ast.unparse(new)}"
        kind, fields = type(node), dict(vars(node))
        node.__class__, node.__dict__ = type(new), vars(ast.copy_location(new, node))
        yield line, what, ast.unparse(tree)
        node.__class__, node.__dict__ = kind, fields


def outcome(command, env, seconds=SECONDS):
    """ "caught" if a command fails, "endless" if it takes longer, else nothing.

    Seconds in which this process is stopped, with all of its priority, do not count.
    """
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(["bash", "-c", command], cwd=ROOT, env=env, start_new_session=True, **quiet)
    for _ in range(seconds):
        try:
            return "caught" if process.wait(1) else ""
        except subprocess.TimeoutExpired:
            pass
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return "endless"


def first_outcome(commands, env):
    """That of the first command, of pairs with its seconds, that does not succeed, else "LIVES"."""
    return next(filter(None, (outcome(command, env, seconds) for command, seconds in commands)), "LIVES")


def pytest_collection_modifyitems(items):
    """As a plugin of pytest: leaves FIRST cases of each test."""
    cases = Counter()
    for item in list(items):
        name = item.nodeid.split("[")[0]
        cases[name] += 1
        if cases[name] > FIRST and "wrong_calls" not in name:
            items.remove(item)


def main(count=60, seed=0):
    """Prints a line for each mutant, and how many were caught."""
    folder = Path(tempfile.mkdtemp(prefix="schuss-mutants-"))
    env = os.environ | {"PYTHONPATH": f"{folder}:{Path(__file__).parent}", "PYTHONDONTWRITEBYTECODE": "1"}
    shutil.copytree(ROOT / "python" / "schuss", folder / "schuss", ignore=shutil.ignore_patterns("__pycache__"))
    pytest = f"ulimit -S -v 16000000; cd tests && {sys.executable} -m pytest -x -q -p no:cacheprovider"
    *few, every = TESTS
    tests = [
        (command, SECONDS) for command in (*(f"{pytest} -p mutants {files}" for files in few), f"{pytest} {every}")
    ]
    if os.environ.get("QUICK"):
        del tests[-1]
    if first_outcome(tests, env) != "LIVES":
        sys.exit("the tests fail without a change")
    files = sorted((folder / "schuss" / "_core").glob("*.py"))
    places = [(path, *mutant) for path in files for mutant in mutants(path.read_text())]
    lived = 0
    for path, line, what, text in random.Random(seed).sample(places, count):
        before = path.read_text()
        path.write_text(text)
        found = first_outcome(tests, env)
        path.write_text(before)
        lived += found == "LIVES"
        print(f"{found}: {path.name}:{line}: {what}", flush=True)
    print(f"{count - lived} of {count} mutants caught; {len(places)} places, seed {seed}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
