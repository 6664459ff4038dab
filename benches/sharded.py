"""What the processes of a job measure of `schuss.mpi`: ``mpiexec -n 2 python -m mpi4py benches/sharded.py [ELEMENTS]``.

Process 0 prints one line of JSON: seconds of a step and of its parts, bytes, and the numbers of the model's machine.
"""

import json
import sys
import time

import numpy as np
from mpi4py import MPI

import schuss
from schuss.mpi import Machine, Sharded, predict

ROUNDS = 15


def least_time(comm, function, rounds=ROUNDS):
    """The least over rounds of the time that the slowest process takes: other programs only add to it."""
    times = []
    for _ in range(rounds):
        comm.Barrier()
        start = time.perf_counter()
        function()
        times.append(comm.allreduce(time.perf_counter() - start, MPI.MAX))
    return min(times)


def machine(comm, elements, size=1 << 22):
    """Latency and bandwidth of the exchange among these processes, and their part of the memory's bandwidth.

    Messages are as large as a bucket's; memory is that of the parameters, most of which no cache holds.
    """
    ranks = comm.size
    size -= size % ranks
    small, got = np.zeros(8 * ranks, np.uint8), np.zeros(8 * ranks, np.uint8)
    large, received = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    one_array, other = np.zeros(elements, np.float32), np.ones(elements, np.float32)

    def many():
        for _ in range(100):
            comm.Alltoall(small, got)

    latency = least_time(comm, many) / 100 / max(ranks - 1, 1)
    one = least_time(comm, lambda: comm.Alltoall(large, received))
    copy = least_time(comm, lambda: np.copyto(one_array, other))
    sent = size * (ranks - 1) / ranks
    bandwidth = sent / max(one - (ranks - 1) * latency, 1e-9) if sent else float("inf")
    return Machine(latency, bandwidth, 2 * one_array.nbytes / copy)


def measured(comm, elements, **options):
    params = [np.ones(elements, np.float32)]
    grads = [np.full(elements, 0.5, np.float32)]
    optimizer = Sharded(schuss.AdamW, params, comm=comm, lr=1e-3, **options)
    schuss.set_num_threads(1)
    optimizer.step(grads)
    result = {"step": least_time(comm, lambda: optimizer.step(grads)), "memory": optimizer.memory}
    starts = np.linspace(0, elements, comm.size + 1).astype(int)
    own = slice(starts[comm.rank], starts[comm.rank + 1])
    plain = schuss.AdamW([params[0][own]], lr=1e-3)
    plain.step([grads[0][own]])
    result["update"] = least_time(comm, lambda: plain.step([grads[0][own]]))
    return result


def main(elements):
    comm = MPI.COMM_WORLD
    found = {"processes": comm.size, "elements": elements, **measured(comm, elements)}
    found["clipped"] = measured(comm, elements, max_grad_norm=1.0)["step"]
    own = machine(comm, elements)
    # Within one machine a core copies the messages, so nothing is hidden.
    predicted = predict(own, comm.size, elements, overlap=False)
    found |= {"machine": own._asdict(), "predicted": predicted._asdict(), "traffic": predicted.traffic}
    if comm.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main(int(float(sys.argv[1])) if len(sys.argv) > 1 else 1 << 23)
