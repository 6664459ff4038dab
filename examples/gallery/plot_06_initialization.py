"""
Why initialization matters
==========================

A network of fifty layers with ReLU, handwritten digits as input, and Gaussian weights of variance 1/n, 2/n and 3/n,
where n is the number of a layer's inputs. ReLU halves the mean square, so that each layer multiplies it by ½, 1 or 3/2.
The upper row shows norms before training. Activations vanish in the forward pass with 1/n and explode with 3/n, and
errors do the same in the backward pass; only 2/n, Kaiming's initialization, keeps both constant. A weight's gradient is
the product of the two: it is similar in all layers, but eight powers of ten too small or five too large. The lower row
shows training. With 1/n the output does not depend on the digits, and the loss stays at that of guessing, 2.3. With 3/n
SGD with momentum overflows at once; Adam, whose steps do not depend on the size of gradients, does not even reach the
loss of guessing. With 2/n both learn.
"""

from functools import partial

import numpy as np
from deep_network import backward, init_params
from drawing import draw_grid, draw_title, new_figure, show
from network import batches, load_data

import schuss

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
# ``deep_network.py`` has the network. The parameters are two lists of arrays.


def scaled_params(factor, seed):
    params = init_params(LAYERS, WIDTH, np.random.default_rng(seed))
    for w in params["w"]:
        w *= factor
    return params


def train(make_optimizer, factor, seed):
    """The loss of every batch."""
    params = scaled_params(factor, seed)
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
# Norms before training. Lines are geometric means over ten networks; bands go from the lowest to the highest value.

# sphinx_gallery_defer_figures
fig, axes = new_figure(
    "Fifty layers with ReLU, and three ways to draw their weights", size=(12, 7.4), mosaic="AABBCC;DDDEEE"
)
upper, lower = [axes[name] for name in "ABC"], [axes[name] for name in "DE"]
layers = np.arange(1, LAYERS + 1)
for label, factor, look in VARIANCES:
    sizes = [[], [], []]
    for seed in range(10):
        params = scaled_params(factor, seed)
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
# Training with three seeds each: means over twenty batches.

OPTIMIZERS = [
    ("SGD momentum", "lr 0.003, momentum 0.9", partial(schuss.SGD, lr=0.003, momentum=0.9)),
    ("Adam", "lr 0.0003", partial(schuss.Adam, lr=3e-4)),
]
for ax, (name, settings, make_optimizer) in zip(lower, OPTIMIZERS, strict=True):
    for label, factor, look in VARIANCES:
        with np.errstate(over="ignore", invalid="ignore"):  # 3/n overflows
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
