"""Fair timing: the compared functions alternate in one process."""

import abc
import itertools
import statistics
import time

import numpy as np

# The version of all benchmarks: asv compares results of one version only. Raise it when what is measured changes.
SUITE = "2"


class Timed(abc.ABC):
    """The base of benchmarks of a step's time, with many calls a sample.

    They are not named ``time_``: where there is a ``setup``, asv_runner 0.3.2 takes single calls, and the clock counts
    too.
    """

    unit = "seconds"
    timeout = 120

    @abc.abstractmethod
    def prepared(self, *params):
        """The step for these parameters, a callable without arguments."""

    def track_step(self, *params):
        return statistics.median(interleave({"step": self.prepared(*params)}, warm=WARM_CALLS)["step"])


WARM_CALLS = 3


def per_call(step, seconds):
    """How many calls take about so many seconds, at least one."""
    step()
    begin, calls = time.perf_counter(), 1
    step()
    while (taken := time.perf_counter() - begin) < seconds / 4:
        calls *= 2
        begin = time.perf_counter()
        for _ in range(calls):
            step()
    return max(1, round(seconds / (taken / calls)))


def interleave(steps, rounds=11, seconds=0.01, rest=0.005, warm=1, work=None):
    """Times ``steps``, a dict {name: callable}, by turns; returns the seconds per call of each, one figure per round.

    A turn makes enough calls to take ``seconds``. The process sleeps for ``rest`` seconds before each turn, so that
    OpenMP threads, which spin after their work, do not use a core in another one's turn; ``BLAS_REST`` is long enough
    for those of OpenBLAS. The first ``warm`` calls of a turn, which may wake a thread pool or load caches, do not
    count. The order rotates from round to round. ``work``, if given, is called before every step and does not count.
    """
    calls = {name: per_call(step, seconds) for name, step in steps.items()}
    taken = {name: [] for name in steps}
    names = list(steps)
    clock = time.perf_counter
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            step = steps[name]
            time.sleep(rest)
            if work:
                each = []
                for _ in range(warm + min(calls[name], PAUSED_CALLS)):
                    work()
                    begin = clock()
                    step()
                    each.append(clock() - begin)
                taken[name].append(statistics.median(each[warm:]))
            else:
                for _ in range(warm):
                    step()
                repeat = itertools.repeat(None, calls[name])
                begin = clock()
                for _ in repeat:
                    step()
                taken[name].append((clock() - begin) / calls[name])
    return taken


# Seconds; the threads of OpenBLAS spin for about 30 ms after a product.
BLAS_REST = 0.05
# Calls per turn with work between them; more would make turns of short steps take seconds.
PAUSED_CALLS = 20


def ratio(taken, name, base):
    """The median over the rounds of name's time divided by base's.

    Other load on the machine slows both sides of a round, so this varies less than the ratio of the medians.
    """
    return statistics.median(a / b for a, b in zip(taken[name], taken[base]))


def measure_ratio(step, base, **options):
    return ratio(interleave({"step": step, "base": base}, **options), "step", "base")


# For comparing two of our own steps: no rest and more warm-up calls, so that the thread pool is awake for both.
HOT = {"rest": 0, "warm": 10}


def numpy_work(milliseconds=1.0):
    """A callable that runs NumPy on one core for so long, like the rest of a training loop."""
    x = np.linspace(0.0, 1.0, 4096)
    out = np.empty_like(x)

    def work():
        end = time.perf_counter() + milliseconds / 1e3
        while time.perf_counter() < end:
            np.tanh(x, out=out)

    return work


def matrix_product(size=512):
    """A callable that multiplies two matrices with NumPy's BLAS, on all of its threads, as models do in each step."""
    a = np.linspace(0.0, 1.0, size * size, dtype=np.float32).reshape(size, size)
    out = np.empty_like(a)
    return lambda: np.matmul(a, a, out=out)
