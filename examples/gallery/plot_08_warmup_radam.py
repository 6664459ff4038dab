r"""
Warm-up and RAdam
=================

Adam divides by the root of an average of squared gradients. In the first steps that average contains few gradients, and
every weight moves by the full learning rate, which can make the loss of a deep network jump. The first plot shows this
for twelve layers on handwritten digits and a learning rate of 0.01: plain Adam's loss rises to several times that of
guessing and takes a dozen steps to return, while it falls from the start with a warm-up over the first epoch, or with
RAdam. The second plot shows the whole training: near the full rate, Adam with warm-up loses most of its advantage. The
third plot shows the final loss for several learning rates; up to 0.003 warm-up makes no difference even for a network
of this depth. The last plot shows that RAdam multiplies the step by a rectification factor :math:`r_t`, which is a kind
of warm-up. With the usual :math:`\beta_2 = 0.999` it takes thousands of steps, so that in a training as short as this
RAdam's steps stay shorter than Adam's. This explains much of its tolerance for large learning rates, and why it is
behind Adam at the smallest.
"""

import numpy as np
from deep_network import backward, init_params
from drawing import draw_grid, draw_label, new_figure, show, style
from network import batches, load_data

import schuss
from schuss import schedules

LAYERS, WIDTH = 12, 192
SEEDS, EPOCHS, BATCH = 3, 6, 32
RATES, SHOWN = (0.001, 0.003, 0.01, 0.03), 0.01
FIRST, SMOOTH = 50, 11

data = load_data()
images = (data.x - data.x.mean(axis=0)) / data.x.std()
per_epoch = len(data.y) // BATCH
steps = EPOCHS * per_epoch

# %%
# Training is one loop over all batches; ``deep_network.py`` has the network.


def train(make_optimizer, seed):
    """The loss of every batch."""
    rng = np.random.default_rng(seed)
    params = init_params(LAYERS, WIDTH, rng)
    optimizer = make_optimizer(params)
    losses = []
    for _ in range(EPOCHS):
        for batch in batches(rng, len(data.y), BATCH):
            loss, _, _, grads = backward(params, images[batch], data.y[batch])
            optimizer.step(grads)
            losses.append(loss)
    return losses


# %%
# In all three cases the learning rate falls linearly to zero.


def adam(params, lr):
    return schuss.Adam(params, lr=schedules.linear(lr, 0.0, steps))


def adam_warmed_up(params, lr):
    return schuss.Adam(params, lr=schedules.warmup(schedules.linear(lr, 0.0, steps - per_epoch), per_epoch))


def radam(params, lr):
    return schuss.RAdam(params, lr=schedules.linear(lr, 0.0, steps))


dotted = {**style("Adam"), "linestyle": (0, (1.2, 1.2))}
METHODS = [
    ("Adam", adam, style("Adam")),
    ("Adam, warm-up", adam_warmed_up, dotted),
    ("RAdam", radam, style("RAdam")),
]

# sphinx_gallery_defer_figures
fig, axes = new_figure("Adam's first steps, warm-up, and RAdam", 2, 2, size=(12, 8))
ax_start, ax_loss, ax_rates, ax_factor = axes.flat
for label, make, look in METHODS:
    ends = []
    for lr in RATES:
        losses = np.array([train(lambda params: make(params, lr), seed) for seed in range(SEEDS)])  # noqa: B023
        ends.append(losses[:, -per_epoch:].mean(axis=1))
        if lr == SHOWN:
            smooth = np.array([np.convolve(run, np.ones(SMOOTH) / SMOOTH, "valid") for run in losses])
            for ax, curves, first in ((ax_start, losses[:, :FIRST], 1), (ax_loss, smooth, SMOOTH // 2 + 1)):
                t = np.arange(curves.shape[1]) + first
                ax.fill_between(t, curves.min(axis=0), curves.max(axis=0), color=look["color"], alpha=0.15, lw=0)
                ax.plot(t, curves.mean(axis=0), label=label, **look)
    ends = np.array(ends)
    ax_rates.fill_between(RATES, ends.min(axis=1), ends.max(axis=1), color=look["color"], alpha=0.15, lw=0)
    ax_rates.plot(RATES, ends.mean(axis=1), marker="o", **look)
for ax in (ax_start, ax_loss):
    ax.axhline(np.log(10), color="#222222", lw=0.8, ls=(0, (2, 3)))
    ax.set(xlabel="step", ylabel="training loss", yscale="log")
ax_start.annotate("guessing", (FIRST, np.log(10)), xytext=(-2, 4), textcoords="offset points", ha="right", fontsize=9)
ax_start.set(title=f"The first {FIRST} steps at lr {SHOWN}", xlim=(0, FIRST))
ax_start.legend(loc="upper right")
ax_loss.set(title=f"The whole training (means over {SMOOTH} steps)", xlim=(0, steps))
ax_rates.set(title=f"Loss in the last of the {EPOCHS} epochs", xlabel="learning rate", ylabel="training loss")
ax_rates.set(xscale="log", yscale="log", xticks=RATES)
ax_rates.minorticks_off()
for axis in (ax_start.yaxis, ax_loss.yaxis, ax_rates.yaxis, ax_rates.xaxis):
    axis.set_major_formatter(lambda value, _: f"{value:g}")

# %%
# The factor is measured: with a gradient of 1 in every step, it is the step's length divided by the learning rate.


def rectification(beta2, count):
    x = np.zeros(1)
    optimizer = schuss.RAdam(x, lr=1.0, betas=(0.9, beta2), unrectified="frozen")
    lengths = []
    for _ in range(count):
        before = x[0]
        optimizer.step(np.ones(1))
        lengths.append(before - x[0])
    return np.array(lengths)


count = 10_000
t = np.arange(1, count + 1)
look = style("RAdam")
for beta2, dashes, place in ((0.999, "-", (1200, 0.55)), (0.99, (0, (5, 1.5)), (56, 0.42))):
    factor = rectification(beta2, count)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    inside = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
    np.testing.assert_allclose(factor, np.sqrt(np.where(rho > 5, inside, 0)), atol=1e-6)
    ax_factor.plot(t, factor, **{**look, "linestyle": dashes})
    draw_label(ax_factor, *place, rf"$\beta_2$ = {beta2}", look)
ramp = schedules.warmup(schedules.constant(1.0), per_epoch)
ax_factor.plot(t, [ramp(step - 1) for step in t.tolist()], **dotted)
draw_label(ax_factor, 3, 0.9, "warm-up of Adam", dotted)
ax_factor.axvline(steps, color="#222222", lw=0.8, ls=(0, (2, 3)))
ax_factor.annotate("end of the\ntraining", (steps, 0.03), xytext=(5, 0), textcoords="offset points", fontsize=9)
ax_factor.set(
    title="Factor on the learning rate", xlabel="step", ylabel=r"$r_t$", xscale="log", xlim=(1, count), ylim=(0, 1.04)
)
for ax in axes.flat:
    draw_grid(ax)
show(fig, "08_warmup_radam")
