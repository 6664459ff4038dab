r"""
Warm-up and RAdam
=================

Adam divides by the root of an average of squared gradients. In the first steps that average has seen hardly any
gradient, and every weight moves by the full learning rate, which can throw a deep network far off. The first plot looks
at that moment, with twelve layers on handwritten digits and a learning rate of 0.01: plain Adam's loss leaps to several
times that of guessing, takes a dozen steps to get back and then lags, while with a warm-up over the first epoch, or
with RAdam instead, it falls from the start. The second plot is the whole training. There the warmed-up Adam stumbles
near the full rate and keeps little of its lead; the third says how the end depends on the learning rate, and that up to
0.003 warm-up makes no difference even to a network as deep as this. The last shows what RAdam does: it multiplies the
step by a rectification factor :math:`r_t`, which is a warm-up of its own. With the usual :math:`\beta_2 = 0.999` that
takes thousands of steps, so that in a training as short as this RAdam takes shorter steps than Adam to the end. Much of
its tolerance for large learning rates comes from that, and so does its place behind Adam at the smallest.
"""

import numpy as np
from drawing import draw_grid, draw_label, new_figure, show, style
from network import batches, load_data

import schuss
from schuss import init, schedules

LAYERS, WIDTH = 12, 192
SEEDS, EPOCHS, BATCH = 3, 6, 32
RATES, SHOWN = (0.001, 0.003, 0.01, 0.03), 0.01
FIRST, SMOOTH = 50, 11

data = load_data()
images = (data.x - data.x.mean(axis=0)) / data.x.std()
per_epoch = len(data.y) // BATCH
steps = EPOCHS * per_epoch

# %%
# The network, a plain stack of layers with ReLU.


def init_params(rng):
    shapes = [(64, WIDTH), *[(WIDTH, WIDTH)] * (LAYERS - 2), (WIDTH, 10)]
    weights = [init.kaiming_normal(shape, rng=rng) for shape in shapes]
    return {"w": weights, "b": [np.zeros(shape[1], np.float32) for shape in shapes]}


def loss_and_gradients(params, x, y):
    inputs = [x]
    for w, b in zip(params["w"][:-1], params["b"][:-1], strict=True):
        inputs.append(np.maximum(inputs[-1] @ w + b, 0))
    scores = inputs[-1] @ params["w"][-1] + params["b"][-1]
    scores -= scores.max(axis=1, keepdims=True)
    log_probs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    rows = np.arange(len(y))
    delta = np.exp(log_probs)
    delta[rows, y] -= 1
    delta /= len(y)
    grads = {"w": [], "b": []}
    for w, h in zip(reversed(params["w"]), reversed(inputs), strict=True):
        grads["w"].insert(0, h.T @ delta)
        grads["b"].insert(0, delta.sum(axis=0))
        delta = (delta @ w.T) * (h > 0)
    return -log_probs[rows, y].mean(), grads


def train(make_optimizer, seed):
    """The loss of every batch."""
    rng = np.random.default_rng(seed)
    params = init_params(rng)
    optimizer = make_optimizer(params)
    losses = []
    for _ in range(EPOCHS):
        for batch in batches(rng, len(data.y), BATCH):
            loss, grads = loss_and_gradients(params, images[batch], data.y[batch])
            optimizer.step(grads)
            losses.append(loss)
    return losses


# %%
# All three end with the learning rate going down to zero in a straight line.


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
# The factor, measured: with a gradient of 1 at every step, the step's length over the learning rate.


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
