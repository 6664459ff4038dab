"""Results of cbrt, pow and atan2 to 240 bits, for the accuracy of the rule language's functions in float64.

Run: python make_functions.py > functions.txt   (needs mpmath)
A line is a function, its arguments and the nearest float64 as hexadecimal bits, and how far the exact result is from
that, in units in the last place.
"""

import random
import struct

import mpmath as mp

mp.mp.prec = 240


def bits(x):
    return struct.unpack("<Q", struct.pack("<d", x))[0]


def any_number(low=1, high=0x7FF << 52):
    return struct.unpack("<d", struct.pack("<Q", random.randrange(low, high)))[0]


def show(name, x, y, exact):
    if not mp.mpf(2) ** -1076 < abs(exact) < mp.mpf(2) ** 1024 * (1 - mp.mpf(2) ** -54):
        return
    ulp = mp.mpf(2) ** (max(int(mp.floor(mp.log(abs(exact), 2))), -1022) - 52)
    steps = mp.nint(exact / ulp)
    print(name, f"{bits(x):x} {bits(y):x} {bits(float(steps * ulp)):x} {float(exact / ulp - steps):.4f}")


def main():
    random.seed(5)
    for i in range(160):
        x = [any_number(), any_number(high=1 << 52), random.uniform(0.1, 10)][i % 3]
        show("cbrt", x, 0.0, mp.cbrt(mp.mpf(x)))
    for i in range(640):
        x = [any_number(), any_number(high=1 << 52), random.uniform(0.5, 2), 10 ** random.uniform(-20, 20)][i % 4]
        y = [random.choice([0.25, 1 / 3, -0.75, 2.0, 0.1]), random.uniform(-1.2, 1.2), random.uniform(-999, 999)][i % 3]
        show("pow", x, y, mp.power(mp.mpf(x), mp.mpf(y)))
    for i in range(480):
        y = [any_number(), random.uniform(-1, 1), 10 ** random.uniform(-3, 3), any_number(high=1 << 52)][i % 4]
        x = [any_number(), random.uniform(-1, 1), 1.0, any_number(high=1 << 52)][i % 4]
        if i % 7 == 0:  # around the tangent of an eighth of pi, where the error is largest
            y = x * random.uniform(0.4, 0.45)
        show("atan2", y, x, mp.atan2(mp.mpf(y), mp.mpf(x)))


if __name__ == "__main__":
    main()
