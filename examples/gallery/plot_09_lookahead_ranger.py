"""
Lookahead and Ranger
====================

Lookahead lets an optimizer take k steps with its fast weights, then moves slow weights a part of the way towards them,
and continues from the slow weights. The first plot is the stretched bowl: momentum alone oscillates, while the slow
weights go only half of the way that five fast steps have gone, which damps the oscillation. The other plots train on
digits with Adam and RAdam, alone and in Lookahead; Ranger combines RAdam, Lookahead and centralized gradients. At small
learning rates Lookahead makes training slower: the dashed lines lie above the solid ones. At 0.02 Adam and RAdam alone
do not converge, and with slow weights they do, also in test accuracy. So Lookahead does not give the lowest loss here,
which is Adam's at 0.006, but a wider choice of learning rates.
"""

from functools import partial

import numpy as np
from drawing import descend, draw_contours, draw_grid, draw_minimum, draw_path, new_figure, show, style
from network import backward, batches, evaluate, init_params, load_data

import schuss


def f(x):
    return 0.2 * x[0] ** 2 + 2 * x[1] ** 2


def gradient(x):
    return x * (0.4, 4)


# %%
# Fast and slow weights. After a synchronization both are equal; the position of the fast weights before it follows from
# alpha.

STEPS, K, ALPHA = 40, 5, 0.5
momentum = partial(schuss.SGD, lr=0.1, momentum=0.9)

x = np.array([6.0, 3.0])
optimizer = schuss.Lookahead(momentum(x), k=K, alpha=ALPHA)
slow, runs = [x.copy()], [[x.copy()]]
for step in range(1, STEPS + 1):
    optimizer.step(gradient(x))
    if step % K == 0:
        runs[-1].append(slow[-1] + (x - slow[-1]) / ALPHA)
        slow.append(x.copy())
        runs.append([])
    runs[-1].append(x.copy())

# sphinx_gallery_defer_figures
fig, axes = new_figure("Lookahead and Ranger", 2, 2, size=(12, 8))
ax_ground, ax_rates, ax_adam, ax_radam = axes.flat
draw_contours(ax_ground, f, (-4, 7), (-3.4, 3.4))
draw_minimum(ax_ground)
look = style("SGD momentum")
ax_ground.plot(
    *descend(momentum, gradient, (6, 3), STEPS).T,
    lw=1,
    alpha=0.7,
    ls=(0, (5, 2)),
    color=look["color"],
    label="momentum alone",
)
for run, back in zip(runs, slow[1:], strict=False):
    ax_ground.plot(
        *np.array(run).T,
        marker="o",
        ms=3.5,
        mec="white",
        mew=0.4,
        lw=1.4,
        label="fast weights" if run is runs[0] else None,
        **look,
    )
    ax_ground.plot(
        *np.array([run[-1], back]).T,
        color="#222222",
        lw=0.9,
        ls=(0, (1.2, 1.2)),
        label="back to slow weights" if run is runs[0] else None,
    )
draw_path(ax_ground, np.array(slow), {"color": "#222222"}, label="slow weights", size=6, marker="s")
ax_ground.set_title(f"Lookahead around momentum, k {K}, alpha {ALPHA}")
ax_ground.legend(loc="lower left", fontsize=9)

# %%
# The digits, with five seeds: lines are means, bands go from the lowest to the highest value.

SEEDS, EPOCHS, BATCH = 5, 20, 32
RATES, SHOWN = (0.002, 0.006, 0.02), 0.02
data = load_data()


def train(make_optimizer, seed):
    """Training loss and test accuracy after each epoch."""
    rng = np.random.default_rng(seed)
    params = init_params(rng)
    optimizer = make_optimizer(params)
    history = [evaluate(params, data)]
    for _ in range(EPOCHS):
        for batch in batches(rng, len(data.y), BATCH):
            optimizer.step(backward(params, data.x[batch], data.y[batch]))
        history.append(evaluate(params, data))
    return np.array(history)


METHODS = {
    "Adam": schuss.Adam,
    "Lookahead(Adam)": lambda params, lr: schuss.Lookahead(schuss.Adam(params, lr=lr), k=5, alpha=0.5),
    "RAdam": schuss.RAdam,
    "Ranger": schuss.Ranger,
}


def draw_band(ax, x, values, label, look, **options):
    ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=look["color"], alpha=0.12, lw=0)
    ax.plot(x, values.mean(axis=0), label=label, **look, **options)


for (name, make), ax in zip(METHODS.items(), (ax_adam, ax_adam, ax_radam, ax_radam), strict=True):
    look = style(name)
    ends = []
    for lr in RATES:
        histories = np.array([train(partial(make, lr=lr), seed) for seed in range(SEEDS)])
        ends.append(histories[:, -5:, 0].mean(axis=1))
        if lr == SHOWN:
            accuracy = histories[:, -5:, 1].mean(axis=1)
            label = f"{name}: {accuracy.mean():.1%} ({accuracy.min():.1%} to {accuracy.max():.1%})"
            draw_band(ax, range(EPOCHS + 1), histories[:, :, 0], label, look)
    draw_band(ax_rates, RATES, np.array(ends).T, name, look, marker="o")
for ax in (ax_adam, ax_radam):
    ax.set(title=f"Digits at lr {SHOWN}", xlabel="epoch", ylabel="training loss", yscale="log")
    ax.set(xlim=(0, EPOCHS), xticks=range(0, EPOCHS + 1, 5), ylim=(3e-4, 4))
    ax.legend(title="test accuracy in the last five epochs", loc="lower left", alignment="left")
ax_rates.set(title="Digits: training loss in the last five epochs", xlabel="learning rate", ylabel="training loss")
ax_rates.set(xscale="log", yscale="log", xticks=RATES)
ax_rates.minorticks_off()
ax_rates.legend(loc="lower left", fontsize=9, handlelength=3.2)
for axis in (ax_adam.yaxis, ax_radam.yaxis, ax_rates.yaxis, ax_rates.xaxis):
    axis.set_major_formatter(lambda value, _: f"{value:g}")
for ax in (ax_rates, ax_adam, ax_radam):
    draw_grid(ax)
show(fig, "09_lookahead_ranger")
