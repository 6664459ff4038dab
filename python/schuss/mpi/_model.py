"""A model of a sharded step: its time and memory, from a few measured numbers. It measures nothing."""

from __future__ import annotations

from typing import NamedTuple


class Machine(NamedTuple):
    """What the model knows of a cluster.

    Parameters
    ----------
    latency : float
        Seconds that a message takes besides its bytes.
    bandwidth : float
        Bytes a second that a process sends while it receives as many.
    memory_bandwidth : float
        Bytes a second that the processes of a machine read and write, divided by their number.
    """

    latency: float
    bandwidth: float
    memory_bandwidth: float


class Prediction(NamedTuple):
    """What a step of one process takes: seconds, and bytes.

    Parameters
    ----------
    exchange : float
        Seconds of messages.
    update : float
        Seconds of packing, adding and updating.
    total : float
        Seconds of the step, in which the shorter of the two is hidden by the longer but for one bucket.
    unsharded : float
        Seconds of a step with the whole state in every process: an all-reduce of the gradients, then the update.
    traffic : float
        Bytes that the process sends.
    state : float
        Bytes of its part of the state.
    memory : float
        Bytes of parameters, gradients, state and buffers.
    """

    exchange: float
    update: float
    total: float
    unsharded: float
    traffic: float
    state: float
    memory: float


def predict(
    machine: Machine,
    ranks: int,
    elements: float,
    *,
    bucket_size: int = 1 << 20,
    param_bytes: int = 4,
    gradient_bytes: int = 4,
    state_bytes: int = 8,
    overlap: bool = True,
) -> Prediction:
    r"""Predicts a step of `Sharded` with `ranks` processes.

    A bucket is an all-to-all of gradients, :math:`R - 1` messages a process, and an all-gather of parameters, for which
    MPI libraries need :math:`R - 1` messages of a ring. With :math:`N` elements, :math:`B` in a bucket, latency
    :math:`\alpha` and bandwidth :math:`\beta`,

    .. math::

       t = \lceil N / B \rceil \, 2 (R - 1) \alpha + (b_g + b_p) \frac{R - 1}{R} \frac{N}{\beta}

    Parameters
    ----------
    machine : Machine
        Measured or assumed.
    ranks : int
        Processes.
    elements : float
        Elements of all parameters.
    bucket_size : int, default 1_048_576
        As for `Sharded`.
    param_bytes, gradient_bytes, state_bytes : int, default 4, 4 and 8
        Bytes an element of parameters, of gradients in messages, and of the state: 8 for AdamW in float32.
    overlap : bool, default True
        Whether messages travel while the process computes, for which the MPI needs a network card or a thread that
        sends by itself. Within one machine they do not: a core copies them.

    Returns
    -------
    Prediction

    Examples
    --------
    >>> from schuss.mpi import Machine, predict
    >>> cluster = Machine(latency=2e-6, bandwidth=25e9, memory_bandwidth=20e9)
    >>> found = predict(cluster, 64, 1e9)
    >>> round(found.state / 1e6), round(found.traffic / 1e9, 1)
    (125, 7.9)
    """
    # NumPy's integers overflow.
    ranks, elements, bucket_size = int(ranks), float(elements), int(bucket_size)
    share, others = elements / ranks, ranks - 1
    buckets = -(-elements // bucket_size)
    traffic = (gradient_bytes + param_bytes) * share * others
    waiting = buckets * 2 * others * machine.latency
    exchange = waiting + traffic / machine.bandwidth
    # Gradients are packed, those of all processes added, the part updated and packed, and the other parts unpacked.
    # An MPI also copies what a process sends to itself.
    packed = 2 * gradient_bytes * elements
    added = (3 * gradient_bytes * others + 2 * gradient_bytes) * share
    updated = (gradient_bytes + 2 * param_bytes + 2 * state_bytes) * share
    unpacked = 2 * param_bytes * elements
    kept = 2 * (gradient_bytes + param_bytes) * share
    update = (packed + added + updated + unpacked + kept) / machine.memory_bandwidth
    hidden = min(exchange, update) * (1 - 1 / max(buckets, 1)) if overlap else 0.0
    reduced = 3 * gradient_bytes * others * share + (gradient_bytes + 2 * param_bytes + 2 * state_bytes) * elements
    # An all-reduce sends gradients, and then their sums.
    all_reduce = waiting + 2 * gradient_bytes * share * others / machine.bandwidth
    unsharded = all_reduce + reduced / machine.memory_bandwidth
    buffers = 2 * bucket_size * (2 * gradient_bytes + param_bytes * (1 + 1 / ranks))
    memory = (param_bytes + gradient_bytes) * elements + (state_bytes + gradient_bytes) * share + buffers
    return Prediction(exchange, update, exchange + update - hidden, unsharded, traffic, state_bytes * share, memory)
