"""Interrupts a call at random moments by an exception, and checks that it did all or nothing."""

import functools
import gc
import os
import random
import signal
import sys
import time

from helpers import assert_same

SHOTS = int(os.environ.get("SCHUSS_TEST_INTERRUPTS", "40"))
#: Timers for each interrupt at most, so that a call too short to be hit ends too.
TIMERS = 50
#: Seconds from the setting of a timer to the beginning of a call: more than it takes to set one.
AHEAD = 1e-4


class Shot(BaseException):
    """What the timer raises."""


def is_same(one, other):
    """Whether two images, arrays and a text, are equal to the last bit."""
    pairs = zip(one[0], other[0], strict=False)
    same = all((a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes()) for a, b in pairs)
    return same and len(one[0]) == len(other[0]) and one[1] == other[1]


def shoot(call, after):
    """Makes a call, and raises `Shot` after so many seconds of it; returns whether this was inside of the call."""
    calling, hit, own = True, False, sys._getframe()

    def handler(_, frame):
        nonlocal hit
        if calling:  # Python may run this some instructions after the signal
            hit = frame is not own
            raise Shot

    before = signal.signal(signal.SIGALRM, handler)
    # An exception in a callback of the garbage collector, such as hypothesis has, would be lost.
    callbacks, gc.callbacks[:] = gc.callbacks[:], []
    try:
        begin = time.perf_counter() + AHEAD
        signal.setitimer(signal.ITIMER_REAL, AHEAD + after)
        while time.perf_counter() < begin:
            pass
        call()
        calling = False
    except Shot:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.callbacks[:] = callbacks
    return hit


def check_all_or_nothing(make, call, step, image, name):
    """Interrupts `call` on new optimizers: each is as before or as after it, and so is its next step.

    Prints how many interrupts came inside of the call, and after how many of these it had made its changes.
    """
    times = []
    for _ in range(5):
        opt = make()
        old, start = image(opt), time.perf_counter()
        call(opt)
        times.append(time.perf_counter() - start)
        new = image(opt)
    later = []
    for changed in (False, True):
        twin = make()
        if changed:
            call(twin)
        step(twin)
        later.append(image(twin))
    rng, timers, hits, after = random.Random(name), 0, 0, 0
    while hits < SHOTS and timers < TIMERS * SHOTS:
        timers += 1
        opt = make()
        if not shoot(functools.partial(call, opt), rng.uniform(-2e-6, 1.3 * min(times))):
            continue
        hits += 1
        now = image(opt)
        changed = not is_same(now, old)
        after += changed
        assert not changed or is_same(now, new)
        step(opt)
        assert_same(image(opt)[0], later[changed][0], "the next step")
    short = "" if hits == SHOTS else f"; the call is too short for {SHOTS}"
    print(f"{name}: {hits} interrupts by {timers} timers, {after} after the change{short}")
    assert hits > 0
