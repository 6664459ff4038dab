"""One side of a comparison: a process that runs the suite's ``time_`` benchmarks on request.

``compare.py`` sends it lines of JSON: a name prepares a benchmark, ``null`` takes one sample of the prepared one. It
knows nothing of the other side.
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
from benchmarks.timing import per_call

import schuss

SAMPLE = 0.01  # seconds
THREADS = schuss.get_num_threads()


def found():
    """Every ``time_`` method of the suite with every choice of its parameters: {name: (class, method, parameters)}."""
    jobs = {}
    for info in pkgutil.iter_modules(benchmarks.__path__):
        module = importlib.import_module(f"benchmarks.{info.name}")
        classes = {name: own for name, own in vars(module).items() if inspect.isclass(own)}
        for name, own in classes.items():
            params = getattr(own, "params", [])
            # asv takes a list of lists, or one list of the only parameter's.
            lists = params if all(isinstance(one, (list, tuple)) for one in params) else [params]
            for method in [method for method in dir(own) if method.startswith("time_")]:
                for choice in itertools.product(*lists):
                    label = f"({', '.join(map(repr, choice))})" if choice else ""
                    jobs[f"{info.name}.{name}.{method}{label}"] = own, method, choice
    return jobs


class Prepared:
    """A benchmark that has been set up and warmed up, and how many calls fill a sample."""

    def __init__(self, own, method, choice):
        schuss.set_num_threads(THREADS)  # asv gives each benchmark a process of its own
        self.benchmark = own()
        self.hook("setup", choice)
        self.tear_down = functools.partial(self.hook, "teardown", choice)
        self.step = functools.partial(getattr(self.benchmark, method), *choice)
        self.calls = per_call(self.step, SAMPLE)

    def hook(self, name, choice):
        if hasattr(self.benchmark, name):
            getattr(self.benchmark, name)(*choice)

    def sample(self):
        """Seconds per call."""
        self.step()  # warms the caches, which the other side has used
        begin = time.perf_counter()
        for _ in itertools.repeat(None, self.calls):
            self.step()
        return (time.perf_counter() - begin) / self.calls


def main():
    answers, sys.stdout = sys.stdout, sys.stderr  # what a benchmark prints is no answer
    jobs = found()
    print(json.dumps(list(jobs)), file=answers, flush=True)
    prepared = None
    for line in sys.stdin:
        name = json.loads(line)
        if name is not None:
            if prepared is not None:
                prepared.tear_down()
            prepared = Prepared(*jobs[name])
        print(json.dumps(prepared.sample()), file=answers, flush=True)


if __name__ == "__main__":
    main()
