"""An exception between any two instructions of Python in functions of arrays, initializers, and a user's schedules."""

import copy
import signal

import ml_dtypes
import numpy as np
import pytest
from helpers import leaves, parameters
from interrupts import Shot, check_all_or_nothing

import schuss

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that sends signals")

KINDS = [name for name in schuss.OPTIMIZERS if hasattr(schuss.functional, f"{name.lower()}_")]
CASES = [(name, "float64") for name in KINDS] + [("AdamW", "bfloat16")]


@pytest.mark.parametrize("count", [int, np.int64], ids=["short way", "all checks"])
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_functions_of_one_array(name, dtype, count):
    """A step of another type than int is checked by itself, as is all else."""
    function = getattr(schuss.functional, f"{name.lower()}_")
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    opt = schuss.OPTIMIZERS[name](np.ones((3, 4), dtype), lr=0.1, max_grad_norm=None)
    opt.step(np.full((3, 4), 0.5))
    arrays = [*parameters(opt), *leaves(list(opt.state_dict()["state"][0].values()))]
    grad = np.full((3, 4), 0.25, np.float32)
    check_all_or_nothing(
        lambda: copy.deepcopy(arrays),
        lambda own: function(own[0], grad, *own[1:], step=count(2), lr=0.1),
        lambda own: function(own[0], grad, *own[1:], step=3, lr=0.1),
        lambda own: (copy.deepcopy(own), ""),
        function.__name__,
    )


@pytest.mark.parametrize("name", ["lecun_normal", "orthogonal", "truncated_normal"])
def test_initializers_that_fill_an_array(name):
    """Of more elements than are drawn at a time."""
    function = getattr(schuss.init, name)
    check_all_or_nothing(
        lambda: np.ones((70_000, 2)),
        lambda own: function(own.shape, rng=3, out=own),
        lambda own: function(own.shape, rng=4, out=own),
        lambda own: ([own.copy()], ""),
        name,
    )


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
                raise Shot

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
    with pytest.raises(Shot):
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
                raise Shot
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
