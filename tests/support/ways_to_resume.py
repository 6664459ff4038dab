"""The ways to go on with an optimizer in another object."""

import copy
import pickle

import pytest

import schuss

each_way_to_resume = pytest.mark.parametrize("how", ["state_dict", "file", "pickle", "deepcopy"])


def resumed(opt, how, make, path):
    """A copy of `opt`; `make` returns an optimizer over copies of its parameters, for the ways that load its state."""
    if how == "deepcopy":
        return copy.deepcopy(opt)
    if how == "pickle":
        return pickle.loads(pickle.dumps(opt))
    other = make()
    if how == "file":
        schuss.save(path, opt)
        schuss.load(path, other)
    else:
        other.load_state_dict(opt.state_dict())
    return other
