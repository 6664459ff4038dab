"""AdaBound's final rate is relative to the first learning rate, which is kept with the state."""

import numpy as np
import pytest

import schuss


def late(step):
    """Rates that begin with 0."""
    return 0.1 * step


def test_the_first_rate_is_saved():
    w, q = np.ones(3), np.ones(3)
    opt = schuss.AdaBound(w, lr=0.5, gamma=0.5)
    opt.param_groups[0]["lr"] = 0.05
    opt.step(np.ones(3))
    state = opt.state_dict()
    assert state["param_groups"][0]["initial_lr"] == 0.5
    q[:] = w
    twin = schuss.AdaBound(q, lr=0.05)
    twin.load_state_dict(state)
    for g in (1.0, -2.0):
        opt.step(np.full(3, g))
        twin.step(np.full(3, g))
    assert w.tolist() == q.tolist()


def test_a_first_rate_of_0_is_refused():
    for rate in (0.0, late):
        with pytest.raises(ValueError, match=r"^final_lr divides by the first lr, which is 0; start above 0, or give"):
            schuss.AdaBound(np.ones(3), lr=rate)
