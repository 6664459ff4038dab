"""Optimizers in reference cycles with what they hold: the garbage collector frees them."""

import gc
import weakref

import numpy as np
import pytest

import schuss


class Array(np.ndarray):
    """Has attributes, unlike a plain array."""


class Key:
    """A key of a dict, with attributes."""


def an_array():
    array = np.ones(3).view(Array)
    array.opt = schuss.SGD([array], lr=0.1)
    return array.opt


def a_key():
    key = Key()
    key.opt = schuss.SGD({key: np.ones(3)}, lr=0.1)
    return key.opt


def a_schedule():
    opt = schuss.SGD(np.ones(3), lr=lambda step: 0.1 if opt else 0.2)
    return opt


def a_context():
    opt = schuss.Lookahead(schuss.SGD(np.ones(3), lr=0.1))
    opt._context = opt.evaluate()
    return opt


def a_lock():
    opt = schuss.SGD(np.ones(3), lr=0.1)
    opt._context = opt._exclusive()
    return opt


def an_entered_context():
    array = np.ones(3).view(Array)
    array.opt = schuss.SAM(schuss.SGD([array], lr=0.1))
    array.opt.first_step([np.ones(3)])
    return array.opt


@pytest.mark.parametrize("make", [an_array, a_key, a_schedule, a_context, a_lock, an_entered_context])
def test_a_cycle_is_freed(make):
    freed = weakref.ref(make())
    gc.collect()
    assert freed() is None


def test_a_finalizer_may_use_the_optimizer_of_its_cycle():
    seen = []

    class Last:
        def __del__(self):
            seen.append(self.opt.step({self: np.ones(3)}))

    last = Last()
    last.opt = schuss.SGD({last: np.ones(3)}, lr=0.1)
    del last
    gc.collect()
    assert seen == [True]
