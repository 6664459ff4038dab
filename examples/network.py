"""The network that `digits.py` and the gallery train on scikit-learn's handwritten digits, in plain NumPy.

It has two hidden layers with ReLU and a softmax; the gradients are computed by hand. Parameters are a nested dict of
float32 arrays, and gradients have the same structure.
"""

from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SIZES = {"hidden1": (64, 128), "hidden2": (128, 64), "output": (64, 10)}


class Data(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load_data():
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=360, random_state=0, stratify=labels)
    return Data(x, y, x_test, y_test)


def init_params(rng):
    """Kaiming's normal initialization: variance 2 / (number of inputs)."""
    return {
        layer: {
            "w": (rng.standard_normal(shape) * np.sqrt(2 / shape[0])).astype(np.float32),
            "b": np.zeros(shape[1], np.float32),
        }
        for layer, shape in SIZES.items()
    }


def forward(params, x):
    h1 = np.maximum(x @ params["hidden1"]["w"] + params["hidden1"]["b"], 0)
    h2 = np.maximum(h1 @ params["hidden2"]["w"] + params["hidden2"]["b"], 0)
    scores = h2 @ params["output"]["w"] + params["output"]["b"]
    scores -= scores.max(axis=1, keepdims=True)  # does not change the softmax, and prevents overflow
    return h1, h2, scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def backward(params, x, y):
    """Gradients of the mean cross-entropy, in the structure of the parameters."""
    h1, h2, log_probs = forward(params, x)
    d3 = np.exp(log_probs)
    d3[np.arange(len(y)), y] -= 1
    d3 /= len(y)
    d2 = (d3 @ params["output"]["w"].T) * (h2 > 0)
    d1 = (d2 @ params["hidden2"]["w"].T) * (h1 > 0)
    return {
        "hidden1": {"w": x.T @ d1, "b": d1.sum(axis=0)},
        "hidden2": {"w": h1.T @ d2, "b": d2.sum(axis=0)},
        "output": {"w": h2.T @ d3, "b": d3.sum(axis=0)},
    }


def evaluate(params, data):
    """Training loss and test accuracy."""
    loss = -forward(params, data.x)[2][np.arange(len(data.y)), data.y].mean()
    return loss, (forward(params, data.x_test)[2].argmax(axis=1) == data.y_test).mean()


def batches(rng, count, size):
    """Index arrays for one pass over `count` samples in random order; an incomplete last batch is left out."""
    order = rng.permutation(count)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]
