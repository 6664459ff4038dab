"""An exception of a signal at a certain moment: in a user's code that a call runs, or just after a lock was taken.

Those at random moments are in tests/system/test_interrupts.py and test_interrupts_elsewhere.py.
"""

import copy

import numpy as np
import pytest
from helpers import Interrupted, assert_unchanged, snapshot

import schuss


@pytest.mark.parametrize("where", ["schedule", "gradient"])
def test_an_interrupt_inside_a_step(where):
    """A signal may arrive in Python code that a step calls; then the step is not taken."""

    class Interrupting:
        def __array__(self, dtype=None, copy=None):
            raise KeyboardInterrupt

    def schedule(step):
        if step == 1:
            raise KeyboardInterrupt
        return 0.1

    opt = schuss.Adam(np.ones(3), lr=schedule if where == "schedule" else 0.1)
    opt.step(np.ones(3))
    before = snapshot(opt)
    with pytest.raises(KeyboardInterrupt):
        opt.step(np.ones(3) if where == "schedule" else Interrupting())
    assert_unchanged(opt, before)


@pytest.mark.parametrize("name", ["Lookahead", "NAG", "Newton", "save"])
def test_an_interrupt_while_an_optimizer_is_locked(name, monkeypatch, tmp_path):
    """A signal that arrives just after the lock was taken must not leave the optimizer locked."""
    w, g, lock = np.ones(2), np.ones(2), schuss._schuss.ExclusiveLock
    make, call = {
        "Lookahead": (lambda: schuss.Lookahead(schuss.SGD(w)), lambda: opt.step(g)),
        "NAG": (lambda: schuss.NAG(w), lambda: opt.step(lambda: g)),
        "Newton": (lambda: schuss.Newton(w), lambda: opt.step(g, np.eye(2))),
        "save": (lambda: schuss.Adam(w), lambda: schuss.save(tmp_path / "file", opt)),
    }[name]
    opt = make()

    def interrupted(*args, **kwargs):
        lock(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(schuss._schuss, "ExclusiveLock", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call()
    monkeypatch.undo()
    call()
    opt._check_idle()


def test_a_schedule_of_the_user_gets_its_state_back():
    """If loading fails after it was loaded."""

    class Counting:
        def __init__(self):
            self.count = 1

        def __call__(self, step):
            return 0.1

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]
            if type(self.count) is float and not hasattr(self, "copied"):
                raise Interrupted

        def __deepcopy__(self, memo):
            result = Counting()
            result.copied = True
            return result

    schedule, plateau = Counting(), schuss.schedules.reduce_on_plateau(0.5, patience=0)
    groups = [{"params": np.ones(2), "lr": plateau}, {"params": np.ones(2), "lr": schedule}]
    opt = schuss.SGD(groups)
    state = copy.deepcopy(opt.state_dict())
    state["param_groups"][0]["lr"] = {"schedule": {"rate": 0.25, "best": 1.0, "bad_updates": 0, "cooldown_left": 0}}
    state["param_groups"][1]["lr"] = {"schedule": {"count": 2.0}}
    with pytest.raises(Interrupted):
        opt.load_state_dict(state | {"step": 5})
    assert (schedule.count, plateau(0), opt.step_count) == (1, 0.5, 0)
    state["param_groups"][1]["lr"] = {"schedule": {"count": 3}}
    opt.load_state_dict(state | {"step": 5})
    assert (schedule.count, plateau(0), opt.step_count) == (3, 0.25, 5)


def test_taking_a_schedule_back_is_repeated_if_interrupted():
    class Careful:
        """Counts calls; one that loads a wrong state fails, and the next call is interrupted."""

        loaded = 1
        interrupts = 0

        def __call__(self, step):
            return 0.1

        def state_dict(self):
            return {"loaded": self.loaded}

        def load_state_dict(self, state):
            if self.interrupts:
                self.interrupts -= 1
                raise Interrupted
            self.loaded = state["loaded"]
            if state["loaded"] == "wrong" and not hasattr(self, "copied"):
                self.interrupts = 2
                raise KeyError("wrong")

        def __deepcopy__(self, memo):
            result = Careful()
            result.copied = True
            return result

    schedule = Careful()
    opt = schuss.SGD(np.ones(2), lr=schedule)
    state = copy.deepcopy(opt.state_dict())
    state["param_groups"][0]["lr"] = {"schedule": {"loaded": "wrong"}}
    with pytest.raises(KeyError):
        opt.load_state_dict(state | {"step": 5})
    assert (schedule.loaded, opt.step_count) == (1, 0)
