"""One side of a comparison: a process that measures the suite's times on request.

``compare.py`` sends it lines of JSON: a name prepares a benchmark, ``null`` takes one sample of the prepared benchmark.
An answer is the seconds, or the text of an error.
"""

import functools
import importlib
import inspect
import itertools
import json
import pkgutil
import sys
import time

import benchmarks
from benchmarks.timing import Timed, per_call

import schuss

BLOCK = 0.0025  # seconds
BLOCKS = 4  # in a sample
THREADS = schuss.get_num_threads()


def found():
    """Every time with every combination of its parameters: {name: (class, method, parameters)}."""
    jobs = {}
    for info in pkgutil.iter_modules(benchmarks.__path__):
        try:
            module = importlib.import_module(f"benchmarks.{info.name}")
        except ImportError as error:  # of what this commit does not have yet
            print(f"{info.name} is left out: {error}", file=sys.stderr)
            continue
        classes = {name: own for name, own in vars(module).items() if inspect.isclass(own) and own is not Timed}
        for name, own in classes.items():
            params = getattr(own, "params", [])
            # asv's `params` is a list of lists, or one list for a single parameter.
            lists = params if all(isinstance(one, (list, tuple)) for one in params) else [params]
            timed = ["track_step"] if issubclass(own, Timed) else []
            for method in timed + [method for method in dir(own) if method.startswith("time_")]:
                for choice in itertools.product(*lists):
                    label = f"({', '.join(map(repr, choice))})" if choice else ""
                    jobs[f"{info.name}.{name}.{method}{label}"] = own, method, choice
    return jobs


class Prepared:
    """A benchmark that has been set up and warmed up, with its number of calls per block."""

    def __init__(self, own, method, choice):
        schuss.set_num_threads(THREADS)  # other benchmarks may have changed it; in asv each has its own process
        self.benchmark = own()
        if isinstance(self.benchmark, Timed):
            self.step = self.benchmark.prepared(*choice)
        else:
            self.hook("setup", choice)
            self.step = functools.partial(getattr(self.benchmark, method), *choice)
        self.tear_down = functools.partial(self.hook, "teardown", choice)
        self.calls = per_call(self.step, BLOCK)

    def hook(self, name, choice):
        if hasattr(self.benchmark, name):
            getattr(self.benchmark, name)(*choice)

    def sample(self):
        """Seconds per call of the fastest block: other processes on the machine only ever add time."""
        self.step()  # loads the caches, which the other side has used
        blocks = []
        for _ in range(BLOCKS):
            begin = time.perf_counter()
            for _ in itertools.repeat(None, self.calls):
                self.step()
            blocks.append(time.perf_counter() - begin)
        return min(blocks) / self.calls


def main():
    answers, sys.stdout = sys.stdout, sys.stderr  # keeps a benchmark's prints out of the answers
    jobs = found()
    print(json.dumps(list(jobs)), file=answers, flush=True)
    prepared = None
    for line in sys.stdin:
        name = json.loads(line)
        try:
            if name is not None:
                if prepared is not None:
                    prepared.tear_down()
                prepared = None  # frees its arrays
                prepared = Prepared(*jobs[name])
            answer = prepared.sample()
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
