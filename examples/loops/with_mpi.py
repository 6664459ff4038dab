"""Train one network in several processes, which share the optimizer's state: their number does not change the result.

Each process computes the gradients of its own micro-batches. `Sharded` adds those of all in a fixed order, updates a
part of the parameters in each process, and sends the parts to the others. A checkpoint of any number of processes can
be loaded by any other number, and by the optimizer alone.

Needs `pip install mpi4py mpich`; run `mpiexec -n 3 python -m mpi4py examples/loops/with_mpi.py`. One process works too.
"""

import tempfile
from pathlib import Path

import numpy as np
from mpi4py import MPI

import schuss
import schuss.mpi

STEPS, MICRO, BATCH = 300, 6, 64


def loss_and_gradients(params, x, y):
    """Mean squared error of a small network, and its gradients."""
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    error = hidden @ params["w2"] + params["b2"] - y
    d2 = 2 * error / len(x)
    d1 = (d2 @ params["w2"].T) * (1 - hidden**2)
    grads = {"w1": x.T @ d1, "b1": d1.sum(axis=0), "w2": hidden.T @ d2, "b2": d2.sum(axis=0)}
    return np.mean(error**2), grads


def first_params():
    rng = np.random.default_rng(1)
    return {
        "w1": schuss.init.xavier_normal((1, 64), gain=3.0, rng=rng),
        "b1": rng.uniform(-3, 3, 64).astype(np.float32),
        "w2": schuss.init.xavier_normal((64, 1), rng=rng),
        "b2": np.zeros(1, np.float32),
    }


def train(comm, x, y):
    params = first_params()
    rate = schuss.schedules.warmup_cosine(3e-2, 20, STEPS)
    optimizer = schuss.mpi.Sharded(schuss.AdamW, params, comm=comm, microbatches=MICRO, lr=rate, max_grad_norm=1.0)
    for step in range(STEPS):
        for number in optimizer.microbatches:  # those of this process, such as 2 and 3 of 6
            rows = np.random.default_rng((2, step, number)).choice(len(x), BATCH, replace=False)
            _, grads = loss_and_gradients(params, x[rows], y[rows])
            if number < optimizer.microbatches[-1]:
                optimizer.accumulate(grads)
        optimizer.step(grads)
    return params, optimizer


def main():
    comm = MPI.COMM_WORLD
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (512, 1)).astype(np.float32)
    y = (np.sin(3 * x) + 0.05 * rng.standard_normal(x.shape)).astype(np.float32)
    params, optimizer = train(comm, x, y)
    alone, _ = train(MPI.COMM_SELF, x, y)
    assert all(array.tobytes() == alone[name].tobytes() for name, array in params.items())

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = comm.bcast(Path(folder) / "state.safetensors")
        optimizer.save(checkpoint)
        if comm.rank == 0:
            plain = schuss.AdamW(first_params(), lr=schuss.schedules.warmup_cosine(3e-2, 20, STEPS))
            schuss.load(checkpoint, plain)
            assert plain.step_count == STEPS
        comm.Barrier()
    loss, _ = loss_and_gradients(params, x, y)
    if comm.rank == 0:
        print(f"{comm.size} processes, loss: {y.var():.4f} without a network, {loss:.4f} with it")
        print("the same bits as one process")
    assert loss < 0.1 < y.var()


if __name__ == "__main__":
    main()
