"""
Large batches, LARS and LAMB
============================

LARS and LAMB scale each layer's step by the norm of the layer. Their papers claim, for ResNet and BERT, that this makes
training with the large learning rates of large batches possible. This example tests it with a small network. Each
optimizer starts from its best rate for batches of 20 digits. Then the batch grows to the whole data with the same
number of epochs, so that 1280 steps become 20. Lower is better. If the rate grows in proportion to the batch, LARS
works up to 320, LAMB fails as early as SGD, and nothing works at the largest batch. If it grows with the square root of
the batch, which is LAMB's rule, SGD and Adam get worse most, LARS less and LAMB least. The thin dotted lines start from
half the base rate, to show how much its choice matters: they begin as well as the others, and all four end alike. With
the best rate for each batch, too, the four are close, LAMB just ahead of Adam and LARS of SGD. So at this size LARS and
LAMB tolerate rates that are too large, LAMB best. With well-chosen rates they have little advantage, and most of the
loss in accuracy comes from having only 20 steps.
"""

import numpy as np
from drawing import draw_grid, new_figure, show, style
from matplotlib.ticker import PercentFormatter
from network import backward, batches, evaluate, init_params, load_data

import schuss
from schuss import schedules

BATCHES = (20, 80, 320, 1280)
USED, EPOCHS, SEEDS = 1280, 20, 4  # 1280 of the training digits, so that all batches are full
data = load_data()
sample = data._replace(x=data.x[:USED], y=data.y[:USED])

# %%
# The base rates have the lowest training loss at the smallest batch, among rates a factor of two apart. Biases are not
# adapted; LARS's have a smaller rate, because no trust coefficient reduces it.


def make_lars(params, rate):
    groups = schuss.split_groups(params, lr=schedules.scale(rate, 0.02))
    return schuss.LARS(groups, lr=rate, weight_decay=1e-4)


METHODS = {
    "SGD momentum": (0.1, lambda params, rate: schuss.SGD(params, lr=rate, momentum=0.9)),
    "Adam": (0.016, lambda params, rate: schuss.Adam(params, lr=rate)),
    "LARS": (4.0, make_lars),
    "LAMB": (0.01, lambda params, rate: schuss.LAMB(schuss.split_groups(params), lr=rate)),
}


def train(make_optimizer, lr, size, seed):
    """Final training loss and test accuracy. The rate warms up for a tenth of the steps, then falls linearly to 0."""
    rng = np.random.default_rng(seed)
    params = init_params(rng)
    steps = EPOCHS * (USED // size)
    ramp = steps // 10
    rate = schedules.warmup(schedules.linear(lr, 0.0, steps - ramp), ramp, skip_first=True)
    optimizer = make_optimizer(params, rate)
    grouped = len(optimizer.param_groups) > 1
    for _ in range(EPOCHS):
        for batch in batches(rng, USED, size):
            grads = backward(params, sample.x[batch], sample.y[batch])
            optimizer.step([group["params"] for group in schuss.split_groups(grads)] if grouped else grads)
    return evaluate(params, sample)


# %%
# The batch size grows fourfold with i. The rates are 2**j times the base rate, for j from -1 to 2 i: the square-root
# rule is j = i, the linear rule j = 2 i.

results = {}
with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # some runs diverge
    for name, (base, make_optimizer) in METHODS.items():
        for i, size in enumerate(BATCHES):
            for j in range(-1, 2 * i + 1):
                runs = [train(make_optimizer, base * 2**j, size, seed) for seed in range(SEEDS)]
                results[name, i, j] = np.array(runs).T


def best(name, i):
    """The j with the lowest training loss."""
    losses = {j: results[name, i, j][0].mean() for j in range(-1, 2 * i + 1)}
    return min(losses, key=lambda j: losses[j] if np.isfinite(losses[j]) else np.inf)


RULES = {
    "Rate grows with the batch (linear rule)": lambda name, i: 2 * i,
    "Rate grows with the batch's root": lambda name, i: i,
    "Best rate of all tried, by training loss": best,
}


def test_errors(name, rule):
    """Test errors, one row per batch size and one column per seed; and the rates."""
    chosen = [rule(name, i) for i in range(len(BATCHES))]
    return 1 - np.array([results[name, i, j][1] for i, j in enumerate(chosen)]), [
        METHODS[name][0] * 2**j for j in chosen
    ]


fig, axes = new_figure("Twenty epochs on 1280 digits, at growing batch size", columns=3, size=(13, 4.8), sharey=True)
for ax, (title, rule) in zip(axes, RULES.items(), strict=True):
    for name, marker in zip(METHODS, "osD^", strict=True):
        errors, rates = test_errors(name, rule)
        look = style(name)
        ax.fill_between(BATCHES, errors.min(axis=1), errors.max(axis=1), color=look["color"], alpha=0.12, lw=0)
        ax.plot(BATCHES, errors.mean(axis=1), marker=marker, ms=7, mec="white", label=name, **look)
        text = ", ".join(f"{mean:.1%} at {rate:g}" for rate, mean in zip(rates, errors.mean(axis=1), strict=True))
        print(f"{title}: {name} {text}")
    ax.set(title=title, xlabel="batch size", xscale="log", xticks=BATCHES)
    ax.minorticks_off()
    ax.xaxis.set_major_formatter(lambda size, _: f"{size:g}\n{EPOCHS * USED // max(int(size), 1)} steps")
    draw_grid(ax)
for name in METHODS:
    errors, _ = test_errors(name, lambda name, i: i - 1)
    axes[1].plot(BATCHES, errors.mean(axis=1), lw=1.2, ls=(0, (1.2, 1.2)), color=style(name)["color"])
axes[1].plot([], [], lw=1.2, ls=(0, (1.2, 1.2)), color="#222222", label="from half the base rate")
axes[1].legend(handles=axes[1].lines[-1:], loc="upper left")
axes[0].set(ylabel="test error", yscale="log", ylim=(0.018, 1), yticks=(0.02, 0.05, 0.1, 0.2, 0.5, 1))
axes[0].minorticks_off()
axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
axes[0].legend(loc="upper left")
show(fig, "10_large_batches")
