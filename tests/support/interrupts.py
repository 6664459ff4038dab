"""Interrupts a call at random moments by an exception, and checks that it did all or nothing."""

import functools
import os
import random
import signal
import time

from helpers import assert_same

SHOTS = int(os.environ.get("SCHUSS_TEST_INTERRUPTS", "40"))


class Shot(BaseException):
    """What the timer raises."""


def is_same(one, other):
    """Whether two images, arrays and a text, are equal to the last bit."""
    pairs = zip(one[0], other[0], strict=False)
    same = all((a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes()) for a, b in pairs)
    return same and len(one[0]) == len(other[0]) and one[1] == other[1]


def shoot(call, after):
    """Makes a call with a timer that raises `Shot` after a time; returns whether it did."""
    calling = True

    def handler(*_):
        if calling:  # Python may run this some instructions after the signal
            raise Shot

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, after)
        call()
        calling = False
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Shot:
        return True
    finally:
        signal.signal(signal.SIGALRM, before)
    return False


def check_all_or_nothing(make, call, step, image, name):
    """Interrupts `call` on new optimizers: each is as before or as after it, and so is its next step."""
    times = []
    for _ in range(3):
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
    rng, hits = random.Random(name), 0
    for _ in range(SHOTS):
        opt = make()
        hits += shoot(functools.partial(call, opt), 1e-6 + 1.5 * min(times) * rng.random())
        now = image(opt)
        changed = not is_same(now, old)
        assert not changed or is_same(now, new)
        step(opt)
        assert_same(image(opt)[0], later[changed][0], "the next step")
    assert hits > 0
