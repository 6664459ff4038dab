"""How arrays are cut among processes, and the model of a step; needs no MPI."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schuss.mpi import Machine, predict
from schuss.mpi._cuts import cut, shares


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9), st.integers(0, 200))
def test_new_units_make_loads_as_equal_as_possible(loads, count):
    own = shares(loads, count)
    assert sum(own) == count and min(own) >= 0
    after = [load + new for load, new in zip(loads, own)]
    # Nobody who has taken something is more than one above anybody.
    assert all(after[rank] <= min(after) + 1 for rank, new in enumerate(own) if new)


@given(st.lists(st.integers(0, 20_000), max_size=20), st.integers(1, 7), st.sampled_from([1024, 3072]))
def test_parts_cover_every_array_and_are_even(lengths, ranks, size):
    loads = [0] * ranks
    for length in lengths:
        places = cut(loads, length, size)
        assert places[0] == 0 and places[-1] == length and places == sorted(places) and len(places) == ranks + 1
        assert all(place % size == 0 or place == length for place in places)
    assert sum(loads) == sum(lengths)
    assert max(loads) - min(loads) <= 3 * size


def test_without_shards_no_parameters_are_sent():
    messages = Machine(1e-6, 1e9, float("inf"))
    wide, narrow = (predict(messages, 4, 1e6, param_bytes=size) for size in (4, 2))
    assert narrow.exchange < wide.exchange and narrow.unsharded == wide.unsharded == wide.exchange


def test_numpys_integers_do_not_overflow_in_the_model():
    machine = Machine(latency=1e-6, bandwidth=1e9, memory_bandwidth=1e9)
    ranks, elements, bucket = np.int8(100), np.int32(2**30), np.int32(2**30)
    same = predict(machine, 100, 2**30, bucket_size=2**30)
    assert predict(machine, ranks, elements, bucket_size=bucket) == same
