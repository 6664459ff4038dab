"""Federated learning with Flower, all in this process: five clients with data of their own, and Adam on the server.

Each round every client takes a few steps of plain SGD from the server's model; the server then takes one step of
`schuss.Adam` towards their average. After six rounds the server is stopped, and another one goes on from its file.
A real federation has `grid` from Flower's ServerApp in the place of `InProcess`.

Needs `pip install "flwr>=1.38"`; run `python examples/loops/with_flower.py`.
"""

import logging
import tempfile
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

import schuss
import schuss.flower

CLIENTS, ROUNDS = 5, 12


def data_of(client):
    """Classification in the plane; the clients' points lie in different parts of it."""
    rng = np.random.default_rng(client)
    angle = 2 * np.pi * client / CLIENTS
    x = rng.normal((np.cos(angle), np.sin(angle)), 0.7, (40, 2)).astype(np.float32)
    return x, (x @ np.array([1.5, -1.0], np.float32) + 0.3 > 0).astype(np.float32)


def loss_and_grads(model, x, y):
    score = x @ model["w"] + model["b"]
    loss = np.mean(np.logaddexp(0, score) - y * score)
    error = (1 / (1 + np.exp(-score)) - y) / len(y)
    return float(loss), {"w": x.T @ error, "b": error.sum()}


def train(client, model):
    """A client's work in a round."""
    x, y = data_of(client)
    for _ in range(5):
        _, grads = loss_and_grads(model, x, y)
        for name, gradient in grads.items():
            model[name] = model[name] - np.float32(0.1) * gradient.astype(np.float32)
    model["rounds"] = model["rounds"] + 1  # an integer, like the counters of BatchNorm: the server leaves it alone
    return model, len(y)


class InProcess:
    """A grid whose nodes are functions of this process."""

    def __init__(self):
        # What Flower's engine sets in its processes.
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1

    def get_node_ids(self):
        return range(CLIENTS)

    def send_and_receive(self, messages, *, timeout=None):
        for message in messages:
            if message.metadata.message_type == "train":
                arrays = {name: array.numpy().copy() for name, array in message.content["arrays"].items()}
                model, examples = train(message.metadata.dst_node_id, arrays)
                record = ArrayRecord({name: Array(np.asarray(array)) for name, array in model.items()})
                content = RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": examples})})
                yield Message(content, dst_node_id=1, message_type="train")


def global_loss(arrays):
    model = {name: array.numpy() for name, array in arrays.items()}
    return np.mean([loss_and_grads(model, *data_of(client))[0] for client in range(CLIENTS)])


def strategy():
    return schuss.flower.FedOpt(lambda arrays: schuss.Adam(arrays, lr=0.3, eps=1e-3), fraction_evaluate=0.0)


def main():
    logging.getLogger("flwr").setLevel(logging.ERROR)
    start = {"w": np.zeros(2, np.float32), "b": np.zeros((), np.float32), "rounds": np.zeros((), np.int64)}
    initial = ArrayRecord({name: Array(array) for name, array in start.items()})
    straight = strategy().start(InProcess(), initial, num_rounds=ROUNDS).arrays

    path = Path(tempfile.mkdtemp()) / "server.safetensors"
    first = strategy()
    first.start(InProcess(), initial, num_rounds=ROUNDS // 2)
    first.save(path)
    second = strategy()
    resumed = second.start(InProcess(), second.load(path, initial), num_rounds=ROUNDS - ROUNDS // 2).arrays

    before, after = global_loss(initial), global_loss(straight)
    print(repr(second.optimizer).splitlines()[0])
    print(f"loss over all clients: {before:.4f} -> {after:.4f} in {ROUNDS} rounds; resumed: {global_loss(resumed):.4f}")
    assert after < 0.5 * before
    # Flower adds up the clients in a random order.
    assert all(np.allclose(straight[name].numpy(), resumed[name].numpy(), rtol=1e-4) for name in start)
    assert straight["w"].numpy().dtype == np.float32 and straight["rounds"].numpy() == 0


if __name__ == "__main__":
    main()
