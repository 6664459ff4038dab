"""
Why initialization matters
==========================

Fifty layers with ReLU, handwritten digits as input, Gaussian weights of variance 1/n, 2/n and 3/n, where n is the
number of a layer's inputs. ReLU lets half of the variance through, so that each layer multiplies it by ½, 1 or 3/2.
Look at the upper row: on their way forward the activations vanish with 1/n and explode with 3/n, errors do the same on
their way backward, and only with 2/n, Kaiming's initialization, do both stay level. A weight's gradient is the product
of the two: it comes out alike in all layers, but eight powers of ten too small or five too large. The lower row says
what becomes of it in training. With 1/n nothing moves, because the digits no longer reach the output: the loss stays at
that of guessing, 2.3. With 3/n momentum overflows at once, and Adam, to which the size of gradients does not matter, is
still busy getting down to what guessing would give. With 2/n both learn.
"""

from functools import partial

import numpy as np
from drawing import draw_grid, draw_title, new_figure, show
from network import batches, load_data

import schuss
from schuss import init

LAYERS, WIDTH = 50, 64
SEEDS, EPOCHS, BATCH = 3, 7, 32

# Label, standard deviation as a multiple of Kaiming's, colour and dashes.
VARIANCES = [
    ("1/n", np.sqrt(1 / 2), {"color": "#44AA99", "linestyle": (0, (5, 1.5))}),
    ("2/n (Kaiming)", 1.0, {"color": "#222222", "linestyle": "-"}),
    ("3/n", np.sqrt(3 / 2), {"color": "#882255", "linestyle": (0, (1.2, 1.2))}),
]

data = load_data()
images = (data.x - data.x.mean(axis=0)) / data.x.std()

# %%
# The network, forward and backward. The parameters are two lists of arrays.


def init_params(factor, seed):
    rng = np.random.default_rng(seed)
    shapes = [(64, WIDTH), *[(WIDTH, WIDTH)] * (LAYERS - 2), (WIDTH, 10)]
    weights = [init.kaiming_normal(shape, rng=rng) for shape in shapes]
    for w in weights:
        w *= factor
    return {"w": weights, "b": [np.zeros(shape[1], np.float32) for shape in shapes]}


def forward(params, x):
    """The inputs of every layer, and the logarithms of the probabilities."""
    inputs = [x]
    for w, b in zip(params["w"], params["b"], strict=True):
        inputs.append(np.maximum(inputs[-1] @ w + b, 0))
    scores = inputs[-2] @ params["w"][-1] + params["b"][-1]  # the last layer has no ReLU
    scores -= scores.max(axis=1, keepdims=True)
    return inputs[:-1], scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


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


def train(make_optimizer, factor, seed):
    """The loss of every batch."""
    params = init_params(factor, seed)
    optimizer = make_optimizer(params)
    rng = np.random.default_rng(seed)
    losses = []
    for _ in range(EPOCHS):
        for batch in batches(rng, len(data.y), BATCH):
            loss, _, _, grads = backward(params, images[batch], data.y[batch])
            losses.append(loss)
            if not np.isfinite(loss):
                return losses
            optimizer.step(grads)
    return losses


# %%
# Before any training: how large is what flows through the layers? Lines are means over ten networks (of logarithms),
# bands go from the lowest to the highest.

fig, axes = new_figure(
    "Fifty layers with ReLU, and three ways to draw their weights", size=(12, 7.4), mosaic="AABBCC;DDDEEE"
)
upper, lower = [axes[name] for name in "ABC"], [axes[name] for name in "DE"]
layers = np.arange(1, LAYERS + 1)
for label, factor, look in VARIANCES:
    sizes = [[], [], []]
    for seed in range(10):
        params = init_params(factor, seed)
        _, inputs, errors, grads = backward(params, images[:256], data.y[:256])
        for size, arrays in zip(sizes, (inputs, errors, grads["w"]), strict=True):
            size.append([np.linalg.norm(array) for array in arrays])
    for ax, size in zip(upper, sizes, strict=True):
        ax.fill_between(layers, np.min(size, axis=0), np.max(size, axis=0), color=look["color"], alpha=0.15, lw=0)
        ax.plot(layers, np.exp(np.log(size).mean(axis=0)), label=label, **look)
upper[0].set(title="Forward →  activations into each layer", ylabel="norm")
upper[1].set(title="← Backward  error at each layer")
upper[2].set(title="← Backward  gradient of the weights")
upper[0].legend(title="variance of the weights", loc="lower left")
for ax in upper:
    ax.set(xlabel="layer", yscale="log", xlim=(1, LAYERS), xticks=[1, 10, 20, 30, 40, 50])

# %%
# And in training, with three seeds each: the means over twenty batches.

OPTIMIZERS = [
    ("SGD momentum", "lr 0.003, momentum 0.9", partial(schuss.SGD, lr=0.003, momentum=0.9)),
    ("Adam", "lr 0.0003", partial(schuss.Adam, lr=3e-4)),
]
for ax, (name, settings, make_optimizer) in zip(lower, OPTIMIZERS, strict=True):
    for label, factor, look in VARIANCES:
        with np.errstate(over="ignore", invalid="ignore"):  # overflow is what 3/n is here to show
            runs = [train(make_optimizer, factor, seed) for seed in range(SEEDS)]
        if not all(np.isfinite(run[-1]) for run in runs):
            assert all(len(run) == 2 for run in runs)
            text = f"{label}: starts at {np.mean([run[0] for run in runs]):,.0f}, overflow in the first step"
            ax.text(0.02, 0.95, text, color=look["color"], transform=ax.transAxes, va="top")
            continue
        curves = np.array(runs)
        curves = curves[:, : curves.shape[1] // 20 * 20].reshape(SEEDS, -1, 20).mean(axis=2)
        steps = np.arange(curves.shape[1]) * 20 + 10
        ax.fill_between(steps, curves.min(axis=0), curves.max(axis=0), color=look["color"], alpha=0.15, lw=0)
        ax.plot(steps, curves.mean(axis=0), **look)
    draw_title(ax, name, settings)
    ax.set(
        xlabel="step", ylabel="training loss", yscale="log", ylim=(0.4, 50), xlim=(0, EPOCHS * (len(data.y) // BATCH))
    )
    ax.yaxis.set_major_formatter(lambda loss, _: f"{loss:g}")
for ax in (*upper, *lower):
    draw_grid(ax)
show(fig, "06_initialization")
