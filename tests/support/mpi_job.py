"""What the cases of `schuss.mpi` share: gradients of every process, their sum, and errors that all have to raise."""

import contextlib
import functools

import numpy as np
from mpi4py import MPI

import schuss

COMM = MPI.COMM_WORLD
RANK, RANKS = COMM.Get_rank(), COMM.Get_size()
#: Gradients that a step adds: no multiple of any number of processes.
COUNT = 7
SHAPES = {"one": ((130, 512), "f4"), "two": ((5000,), "f4"), "three": ((3, 40, 60), "f8"), "none": ((0,), "f4")}
#: For rows of the conformance table.
ROW = {"one": ((40, 70), "f4"), "two": ((1500,), "f4"), "three": ((2, 20, 60), "f4")}
SMALL = {"one": ((70, 40), "f4"), "two": ((3000,), "f4"), "three": ((3, 20, 30), "f8"), "none": ((0,), "f4")}
OPTIMIZERS = [name for name, kind in schuss.OPTIMIZERS.items() if kind._shareable]


def arrays(shapes, seed, dtype=None):
    """Arrays of random numbers, one of them in Fortran order."""
    random = np.random.default_rng(seed)
    made = {name: random.standard_normal(shape).astype(dtype or kind) for name, (shape, kind) in shapes.items()}
    made["three"] = np.asfortranarray(made["three"])
    return made


def tree(gradients):
    """The sum of gradients, in the tree that `Sharded` documents."""
    if len(gradients) == 1:
        return gradients[0]
    left = 1
    while 2 * left < len(gradients):
        left *= 2
    one, other = tree(gradients[:left]), tree(gradients[left:])
    return {name: one[name] + other[name] for name in one}


@functools.cache
def gradients(small, step, dtype):
    """In the type that updates are computed in, which is also that of their sum."""
    dtype = dtype and np.float32
    return [arrays(SMALL if small else SHAPES, 100 * step + number, dtype) for number in range(COUNT)]


def take(given, own):
    """A step with this process's gradients."""
    for number in own.microbatches[:-1]:
        own.accumulate(given[number])
    return own.step(given[own.microbatches[-1]])


def same(one, other):
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


@contextlib.contextmanager
def processes(count):
    """A communicator of the first processes; None in the others."""
    comm = COMM.Split(0 if count > RANK else MPI.UNDEFINED)
    yield None if comm == MPI.COMM_NULL else comm


def closure(params, number):
    """The gradient that NAG asks for."""
    return {name: (0.1 * x + number).astype(x.dtype) for name, x in params.items()}


def raised(kind, text, function):
    """Asserts that all processes raise the same error."""
    try:
        function()
    except Exception as error:
        found = (type(error), str(error))
    else:
        found = None
    everyone = COMM.allgather(found)
    assert all(one == everyone[0] for one in everyone), everyone
    assert found is not None and found[0] is kind and text in found[1], found
