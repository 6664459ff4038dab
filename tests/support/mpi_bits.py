"""Cases of `schuss.mpi` that compare with one process: parameters, states and files have the same bits."""

import filecmp
import functools
import os

import ml_dtypes
import numpy as np
from cases import CASES
from mpi_job import (
    COMM,
    COUNT,
    OPTIMIZERS,
    RANK,
    RANKS,
    ROW,
    SHAPES,
    SMALL,
    arrays,
    closure,
    gradients,
    processes,
    raised,
    same,
    take,
    tree,
)

import schuss
from schuss.mpi import Sharded


def check_bits(name, comm, small, options, dtype=None, steps=2):
    kind, shapes = schuss.OPTIMIZERS[name], SMALL if small else SHAPES
    options = {"lr": 0.01, **options}
    alone, shared = arrays(shapes, 1, dtype), arrays(shapes, 1, dtype)
    if RANK > 0:
        shared["two"][...] = 0  # process 0 sends its values
    plain = kind(alone, **options)
    own = Sharded(kind, shared, comm=comm, bucket_size=4096, microbatches=COUNT, **options)
    for step in range(steps):
        if name == "NAG":
            here = [functools.partial(closure, number=number) for number in range(COUNT)]
            plain.step(lambda here=here: tree([one(alone) for one in here]), grad_scale=float(COUNT))
            own.step(lambda here=here: (here[number](shared) for number in own.microbatches))
            continue
        given = gradients(small, step, dtype)
        if name.startswith("Sophia") and step == 1:
            estimates = gradients(small, 8, dtype)
            plain.update_hessian({n: x / x.dtype.type(COUNT) for n, x in tree(estimates).items()})
            own.update_hessian(*(estimates[number] for number in own.microbatches))
        assert plain.step(tree(given), grad_scale=float(COUNT)) and take(given, own)
        assert own.grad_norm == plain.grad_norm
    if hasattr(plain, "eval"):
        plain.eval()
        own.eval()
    assert same(alone, shared), f"{name} {options} on {comm.size} processes"
    return plain, own, alone, shared


def bits():
    """Every optimizer on three processes, some on one, two and four."""
    with processes(3) as comm:
        if comm:
            for name in OPTIMIZERS:
                small = name not in ("Adafactor", "AdamMini", "AdamP", "Ranger", "SGDP")  # these see matrices
                check_bits(name, comm, small, {"max_grad_norm": 1.0, "nonfinite": "skip"} if name != "SGD" else {})
    for count in (1, 2, 4):
        with processes(count) as comm:
            if comm:
                for name in ("AdamW", "LAMB", "Prodigy"):
                    check_bits(name, comm, True, {})
    with processes(2) as comm:
        if comm:
            check_bits("Adafactor", comm, False, {"max_grad_norm": 0.5})


def check_row(case, comm):
    """A row of the conformance table; in the third step an array has no gradient."""
    kind = schuss.OPTIMIZERS[case.optimizer]
    alone, shared = arrays(ROW, 1), arrays(ROW, 1)
    plain, own = kind(alone, **case.kwargs), Sharded(kind, shared, comm=comm, bucket_size=4096, **case.kwargs)
    for step in range(4):
        if case.optimizer == "NAG":
            here = [functools.partial(closure, number=number) for number in range(comm.size)]
            plain.step(lambda here=here: tree([one(alone) for one in here]), grad_scale=float(comm.size))
            own.step(lambda here=here: here[comm.rank](shared))
            continue
        given = [arrays(ROW, 100 * step + number) for number in range(comm.size)]
        left_out = {"two": None} if step == 2 else {}
        taken = plain.step(tree(given) | left_out, grad_scale=float(comm.size))
        assert own.step(given[comm.rank] | left_out) == taken
    if hasattr(plain, "eval"):
        plain.eval()
        own.eval()
    assert same(alone, shared), f"{case} on {comm.size} processes"


def table(part, parts):
    """Some rows of the conformance table, one of `parts` of them, on three processes."""
    rows = [case for case in CASES if case.optimizer in OPTIMIZERS]
    for case in rows[int(part) :: int(parts)]:
        check_row(case, COMM)


def formats():
    """Small states and master weights, whose rounding depends on the place of an element in its array."""
    for options, dtype in (
        ({"state_dtype": "int8"}, "f4"),
        ({"state_dtype": "bfloat16", "master_weights": True}, ml_dtypes.bfloat16),
        ({"state_dtype": "bfloat16", "max_grad_norm": 1.0}, None),
    ):
        check_bits("AdamW", COMM, True, options, dtype)


def files(folder):
    """Files go from any number of processes to any other, and to and from the plain optimizer."""
    path = os.path.join(folder, "state")
    for name, options in (("AdamW", {}), ("Adafactor", {}), ("Ranger", {"state_dtype": "int8"}), ("Prodigy", {})):
        dtype = "f4" if options else None
        with processes(3) as comm:
            if comm:
                plain, own, _, _ = check_bits(name, comm, True, options, dtype)
                own.save(path)
                if RANK == 0:
                    schuss.save(f"{path}.plain", plain)
                    assert filecmp.cmp(path, f"{path}.plain", shallow=False), name
        COMM.Barrier()
        with processes(2) as comm:
            if comm:
                shared, again = arrays(SMALL, 2, dtype), arrays(SMALL, 3, dtype)
                own = Sharded(schuss.OPTIMIZERS[name], shared, comm=comm, microbatches=COUNT, lr=0.01, **options)
                own.load(path)
                plain = schuss.OPTIMIZERS[name](again, lr=0.01, **options)
                schuss.load(path, plain)
                given = gradients(True, 5, dtype)
                assert plain.step(tree(given), grad_scale=float(COUNT)) and take(given, own)
                assert same(again, shared) and own.step_count == 3, name
        COMM.Barrier()


def groups():
    """Groups that are added later have the bits of one process; an error adds none."""
    alone, shared = arrays(SMALL, 1), arrays(SMALL, 1)
    plain = schuss.AdamW(alone, lr=0.01, max_grad_norm=1.0)
    own = Sharded(schuss.AdamW, shared, lr=0.01, max_grad_norm=1.0, bucket_size=4096)
    raised(ValueError, "differ in", lambda: own.add_param_group({"params": np.ones(3), "lr": float(RANK)}))
    raised(
        ValueError, "differ in param_groups[1]['params']", lambda: own.add_param_group({"params": np.ones(3 + RANK)})
    )
    raised(TypeError, "has unknown 'rate'", lambda: own.add_param_group({"params": np.ones(3), "rate": 1}))
    raised(
        ValueError, "memory", lambda: own.add_param_group({"params": shared["two"] if RANK else np.ones(3000, "f4")})
    )
    for step in range(4):
        if step == 2:
            more, ours = arrays(ROW, 7), arrays(ROW, 7 + RANK)
            plain.add_param_group({"params": more, "lr": 0.1})
            own.add_param_group({"params": ours, "lr": 0.1})
        given = [arrays(SMALL, 100 * step + number) for number in range(RANKS)]
        extra = [arrays(ROW, 200 * step + number) for number in range(RANKS)]
        both = (lambda one, other: one) if step < 2 else (lambda one, other: [one, other])
        plain.step(both(tree(given), tree(extra)), grad_scale=float(RANKS))
        own.step(both(given[RANK], extra[RANK]))
    assert same(alone, shared) and same(more, ours)
    state = own.memory["state"]
    assert abs(RANKS * state / sum(x.nbytes for own in plain._states for x in own) - 1) < 0.5
