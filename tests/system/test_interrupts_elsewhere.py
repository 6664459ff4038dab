"""An exception between any two instructions of Python in functions of one array, and in initializers."""

import copy
import signal

import ml_dtypes
import numpy as np
import pytest
from helpers import leaves, parameters
from interrupts import check_all_or_nothing

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
