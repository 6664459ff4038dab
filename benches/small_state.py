"""One step with state in less memory beside one with float32 state, in cache and past it, interleaved in one run.

    python benches/small_state.py [--elements 16384,1048576,67108864] [--optimizer AdamW] [--rounds 9]

Prints a table: nanoseconds an element, and how many times as fast as float32 state (medians). State in less memory pays
where memory is the wall, and costs arithmetic in cache.
"""

import argparse
import time

import numpy as np

import schuss

WAYS = {
    "float32": {},
    "bfloat16": {"state_dtype": "bfloat16"},
    "bfloat16, nearest": {"state_dtype": "bfloat16", "state_rounding": "nearest"},
    "int8": {"state_dtype": "int8"},
}


def step(name, n, ways, gradient):
    settings = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(schuss, name)(np.full(n, 0.1, np.float32), lr=1e-3, **settings, **ways)
    return lambda: optimizer.step(gradient)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", default="16384,1048576,67108864")
    parser.add_argument("--optimizer", default="AdamW")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    print(f"{given.optimizer}, {schuss.cpu_level()}, {schuss.get_num_threads()} threads\n")
    print("| elements | " + " | ".join(WAYS) + " |\n|" + "---|" * (1 + len(WAYS)))
    for n in map(int, given.elements.split(",")):
        gradient = np.random.default_rng(0).standard_normal(n, dtype=np.float32) * np.float32(0.01)
        steps = {way: step(given.optimizer, n, options, gradient) for way, options in WAYS.items()}
        times = {way: [] for way in WAYS}
        repeat = max(1, 20_000_000 // n)
        for timed in range(-2, given.rounds):
            for way, take in steps.items():
                start = time.perf_counter()
                for _ in range(repeat):
                    take()
                if timed >= 0:
                    times[way].append((time.perf_counter() - start) / repeat / n * 1e9)
        medians = {way: float(np.median(own)) for way, own in times.items()}
        cells = [f"{own:.3f} ns ({medians['float32'] / own:.2f})" for own in medians.values()]
        print(f"| {n:,} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
