"""A model of the thread pool (``rust/kernels/src/exec/pool``) on machines with many cores. Measures nothing.

    python benches/many_cores.py

It plays a loop of float32 AdamW steps: the caller posts a region and wakes helpers, each helper joins it, threads
claim tasks. What all of them write is in cache lines that one core at a time has, so that joins wait for joins, and
claims for claims. docs/internals/many_cores.rst says where the costs below come from, and what follows.
"""

import heapq
from typing import NamedTuple

LINE = 60e-9  # until a core has a cache line that another one has just written
JOIN = 4 * LINE  # a helper takes a slot, the lock twice, and a share of the region
CALL = 2e-6  # of the thread that wakes another one
SLEEPER = 50e-6  # until a woken thread runs
ELEMENT = 0.55e-9  # of AdamW, in the caches
BYTES = 28  # per element
CACHES = 64e6  # bytes; larger arrays come from memory
STREAM = 22e9  # bytes per second between one core and memory
MEMORY = {1: 22e9, 2: 41e9, 4: 80e9, 16: 200e9, 64: 400e9, 96: 600e9}  # of so many cores; beyond two it is assumed


class Pool(NamedTuple):
    """What ``partition.rs`` and ``region.rs`` do; or did, or could do."""

    tasks_per_core: int = (
        0  # at least, if they have 16,384 elements; more than 64 tasks are made in any case past 4,194,304
    )
    all_join: bool = False  # whether helpers that a region does not want look at it, too
    wakes: int = 0  # how many helpers a thread wakes, each of which wakes as many; 0: the caller wakes all
    counts_once: bool = False  # whether a thread counts its tasks when none is left, instead of each when it is done


POOLS = {
    "before": Pool(all_join=True),
    "now": Pool(),
    "finer": Pool(tasks_per_core=4),
    "tree": Pool(wakes=8),
    "once": Pool(counts_once=True),
}


def task_size(pool, elements, cores):
    """The elements of a task."""
    small = min(16_384, max(4_096, elements // 16))
    return min(65_536, max(small, elements // max(64, pool.tasks_per_core * cores)))


def wake(pool, helpers):
    """When the caller has woken helpers, and when each of them runs."""
    direct = min(helpers, pool.wakes or helpers)
    times = []
    for place in range(direct):
        runs = (place + 1) * CALL + SLEEPER
        begins, others = wake(pool, (helpers - direct + place) // direct)
        times += [runs + begins, *(runs + time for time in others)]
    return direct * CALL, times


def step(pool, elements, threads, awake):
    """The seconds of a step over so many elements, with as many cores as threads, of which all or none are awake."""
    size = task_size(pool, elements, threads)
    left = uncounted = -(-elements // size)
    helpers = min(threads, left) - 1
    begin, runs = (0.0, [LINE] * helpers) if awake else wake(pool, helpers)
    # What threads do next, each with the number of tasks that it has done and not counted.
    queue = [(begin, "claim", 0), *((time, "join", 0) for time in runs)]
    heapq.heapify(queue)
    board = job = 0.0
    running = 0
    while True:
        now, what, done = heapq.heappop(queue)
        if what == "join":
            now = board = max(now, board) + JOIN
            heapq.heappush(queue, (now, "claim", 0))
            continue
        if what == "done":
            running -= 1
            heapq.heappush(queue, (now, "claim" if pool.counts_once else "count", done))
            continue
        now = job = max(now, job) + (LINE if helpers else 0.0)
        if what == "count":
            uncounted -= done
            if not uncounted:
                break
            heapq.heappush(queue, (now, "claim", 0))
        elif left:
            left -= 1
            running += 1
            rate = min(STREAM, MEMORY[threads] / running)
            each = ELEMENT if elements * BYTES < CACHES else max(ELEMENT, BYTES / rate)
            heapq.heappush(queue, (now + size * each, "done", done + 1))
        elif done:
            heapq.heappush(queue, (now, "count", done))
    # The next region needs the lock, for which it waits behind those that are not wanted.
    unwanted = threads - 1 - helpers if awake and pool.all_join else 0
    return max(now, board + unwanted * JOIN)


def table(awake, pools, sizes):
    threads = [1, 2, 4, 16, 64, 96]
    print(f"Helpers {'spin' if awake else 'sleep'}; microseconds: {', '.join(pools)}")
    print("elements".rjust(11), *(f"{n} threads".rjust(21) for n in threads))
    for elements in sizes:
        cells = [" ".join(f"{step(POOLS[name], elements, n, awake) * 1e6:,.0f}" for name in pools) for n in threads]
        print(f"{elements:>11,}", *(cell.rjust(21) for cell in cells))


if __name__ == "__main__":
    large = [1_048_576, 2_097_152, 4_194_304, 16_777_216]
    table(True, ["before", "now", "finer"], [16_384, 65_536, 262_144, *large])
    table(False, ["now", "finer", "tree"], [262_144, *large])
