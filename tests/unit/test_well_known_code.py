"""Updates of well-known programs and the optimizers that the documentation has beside them."""

import numpy as np
import pytest

import schuss


def well_known():
    """What the table of well-known code on the page about NumPy has: updates of `w`, and the optimizers beside them."""

    def velocity(w, g, s, t):
        s["v"] = 0.8 * s.get("v", 0.0) - 0.1 * g
        w += s["v"]

    def char_rnn(w, g, s, t):
        s["cache"] = s.get("cache", 0.0) + g * g
        w -= 0.1 * g / np.sqrt(s["cache"] + 1e-8)

    def pong(w, g, s, t):
        s["cache"] = 0.99 * s.get("cache", 0.0) + (1 - 0.99) * g**2
        w += 0.1 * g / (np.sqrt(s["cache"]) + 1e-5)

    def adam(w, g, s, t):
        s["m"] = 0.1 * g + 0.9 * s.get("m", 0.0)
        s["v"] = (1 - 0.999) * g**2 + 0.999 * s.get("v", 0.0)
        w -= 0.1 * s["m"] / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-8)

    def rmsprop(w, g, s, t):
        s["a"] = s.get("a", 1.0) * 0.9 + g**2 * 0.1
        w -= 0.1 * g / (np.sqrt(s["a"]) + 1e-8)

    def sgd(w, g, s, t):
        s["v"] = 0.9 * s.get("v", 0.0) - 0.1 * g
        w += 0.2 * s["v"]

    def ftrl(w, g, s, t):
        z, n = s.get("z", 0.0), s.get("n", 0.0)
        s["z"], s["n"] = z + g - (np.sqrt(n + g * g) - np.sqrt(n)) / 0.2 * w, n + g * g
        shrunk = np.sign(s["z"]) * 0.3 - s["z"]
        w[...] = np.where(abs(s["z"]) <= 0.3, 0.0, shrunk / ((0.7 + np.sqrt(s["n"])) / 0.2 + 0.4))

    return [
        (velocity, lambda w: schuss.SGD(w, 0.1, momentum=0.8, momentum_form="velocity")),
        (char_rnn, lambda w: schuss.Adagrad(w, 0.1, eps=1e-8, eps_inside_sqrt=True)),
        (pong, lambda w: schuss.RMSprop(w, 0.1, alpha=0.99, eps=1e-5, maximize=True)),
        (adam, lambda w: schuss.Adam(w, 0.1)),
        (rmsprop, lambda w: schuss.RMSprop(w, 0.1, alpha=0.9, initial_square_avg=1.0)),
        (sgd, lambda w: schuss.SGD(w, 0.2, momentum=0.9, momentum_form="ema")),
        (ftrl, lambda w: schuss.FTRL(w, 0.2, beta=0.7, l1=0.3, l2=0.4, initial_accumulator_value=0.0)),
    ]


@pytest.mark.parametrize(("update", "make"), well_known())
def test_well_known_code(update, make):
    rng = np.random.default_rng(0)
    theirs, state = np.zeros(5), {}
    ours = theirs.copy()
    opt = make(ours)
    for t in range(1, 30):
        g = rng.standard_normal(5)
        update(theirs, g, state, t)
        opt.step(g)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
