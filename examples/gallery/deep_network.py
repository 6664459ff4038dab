"""A plain stack of layers with ReLU in NumPy, with Kaiming's initialization, for the gallery's scripts."""

import numpy as np

from schuss import init


def init_params(layers, width, rng):
    """Two lists of arrays; 64 inputs, 10 outputs."""
    shapes = [(64, width), *[(width, width)] * (layers - 2), (width, 10)]
    weights = [init.kaiming_normal(shape, rng=rng) for shape in shapes]
    return {"w": weights, "b": [np.zeros(shape[1], np.float32) for shape in shapes]}


def forward(params, x):
    """The inputs of every layer, and the logarithms of the probabilities."""
    inputs = [x]
    for w, b in zip(params["w"][:-1], params["b"][:-1], strict=True):
        inputs.append(np.maximum(inputs[-1] @ w + b, 0))
    scores = inputs[-1] @ params["w"][-1] + params["b"][-1]
    scores -= scores.max(axis=1, keepdims=True)
    return inputs, scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def backward(params, x, y):
    """Loss, the inputs of every layer, the errors (gradients of the loss at its outputs), and gradients."""
    inputs, log_probs = forward(params, x)
    rows = np.arange(len(y))
    delta = np.exp(log_probs)
    delta[rows, y] -= 1
    delta /= len(y)
    errors, grads = [], {"w": [], "b": []}
    for w, h in zip(reversed(params["w"]), reversed(inputs), strict=True):
        errors.insert(0, delta)
        grads["w"].insert(0, h.T @ delta)
        grads["b"].insert(0, delta.sum(axis=0))
        delta = (delta @ w.T) * (h > 0)
    return -log_probs[rows, y].mean(), inputs, errors, grads
