"""
Learning-rate schedules
=======================

Every schedule of the package over 100 steps, with a highest rate of 1. Some reach zero and others never do; some stay
constant at their end and others rise again. A warm-up or a second schedule can be put before any other. The last plot
shows the momentum of one-cycle, which is lowest where the rate is highest. A schedule is a function of the step, so its
values are ``[schedule(t) for t in range(100)]``.
"""

import numpy as np
from drawing import draw_grid, new_figure, show
from matplotlib.ticker import MultipleLocator

import schuss
from schuss import schedules

STEPS = 100
LINES = [
    {"color": "#0072B2"},
    {"color": "#D55E00", "linestyle": (0, (5, 1.5))},
    {"color": "#222222", "linestyle": (0, (1.2, 1.2))},
]

LEGEND = {
    "loc": "upper right",
    "fontsize": 8.5,
    "ncols": 2,
    "handlelength": 1.6,
    "columnspacing": 1,
    "labelspacing": 0.2,
}

# %%
# Title and lines of each plot; a line has a label and a schedule.

PLOTS = [
    ("constant", [("", schedules.constant(1.0))]),
    ("step", [("gamma 0.5", schedules.step(1.0, 20, gamma=0.5)), ("gamma 0.1", schedules.step(1.0, 40))]),
    ("multi_step", [("at 30 and 80", schedules.multi_step(1.0, [30, 80], gamma=0.3))]),
    ("exponential", [("gamma 0.96", schedules.exponential(1.0, 0.96))]),
    ("multiplicative", [("slower and slower", schedules.multiplicative(1.0, lambda t: 1 - 1 / (t + 10)))]),
    (
        "inverse_time",
        [
            ("smooth", schedules.inverse_time(1.0, 0.5, 20)),
            ("staircase", schedules.inverse_time(1.0, 0.5, 20, staircase=True)),
        ],
    ),
    ("linear", [("", schedules.linear(1.0, 0.0, 80))]),
    (
        "polynomial",
        [("power 2", schedules.polynomial(1.0, 80, power=2.0)), ("power ½", schedules.polynomial(1.0, 80, 0.5))],
    ),
    ("inverse_sqrt", [("warmup_steps 15", schedules.inverse_sqrt(1.0, 15))]),
    (
        "cosine",
        [("hold", schedules.cosine(1.0, 0.0, 50)), ("periodic", schedules.cosine(1.0, 0.0, 50, after="periodic"))],
    ),
    (
        "cosine_restarts",
        [
            ("T_mult 1", schedules.cosine_restarts(1.0, 0.0, 25)),
            ("T_mult 2", schedules.cosine_restarts(1.0, 0.0, 14, T_mult=2)),
        ],
    ),
    (
        "cyclic",
        [(mode, schedules.cyclic(0.1, 1.0, 20, mode=mode, gamma=0.98)) for mode in ("triangular", "exp_range")],
    ),
    (
        "warmup",
        [
            ("of constant", schedules.warmup(schedules.constant(1.0), 20)),
            ("of step, from 0.3", schedules.warmup(schedules.step(1.0, 30, gamma=0.5), 20, start=0.3)),
        ],
    ),
    ("warmup_cosine", [("", schedules.warmup_cosine(1.0, 20, 100, lr_min=0.1))]),
    (
        "join",
        [
            (
                "3 schedules",
                schedules.join(
                    [schedules.constant(1.0), schedules.cosine(0.6, 0.1, 50), schedules.constant(0.3)], [30, 80]
                ),
            )
        ],
    ),
    (
        "chain",
        [("exponential, cyclic", schedules.chain([schedules.exponential(1.0, 0.98), schedules.cyclic(0.3, 1.0, 10)]))],
    ),
    (
        "scale",
        [
            ("cosine", schedules.cosine(1.0, 0.0, 80)),
            ("its half", schedules.scale(schedules.cosine(1.0, 0.0, 80), 0.5)),
        ],
    ),
    ("swalr", [("after exponential", schedules.swalr(schedules.exponential(1.0, 0.96), 0.5, 40))]),
]
CYCLES = [
    ("cos", schedules.one_cycle(1.0, STEPS)),
    ("linear", schedules.one_cycle(1.0, STEPS, anneal="linear")),
    ("three phases", schedules.one_cycle(1.0, STEPS, anneal="linear", three_phase=True)),
]

# sphinx_gallery_defer_figures
fig, axes = new_figure("Learning-rate schedules", 7, 3, size=(10, 15.5), sharex=True)
for ax, (title, lines) in zip(axes.flat, [*PLOTS, ("one_cycle", CYCLES)], strict=False):
    for (label, schedule), look in zip(lines, LINES, strict=False):
        ax.plot([schedule(t) for t in range(STEPS)], label=label, **look)
    ax.set_title(title, fontweight="bold")
    if len(lines) == 1:
        ax.set_title(lines[0][0], loc="right", fontsize=8.5)
    else:
        ax.legend(**LEGEND)

# %%
# ``reduce_on_plateau`` depends on a metric. Here the metric is a simulated loss that approaches a limit, which is lower
# for smaller rates, as with the noise of real training. The optimizer calls the schedule itself.

plateau, momentum = axes.flat[-2:]
rate = schedules.reduce_on_plateau(1.0, factor=0.4, patience=4, threshold=0.02)
optimizer = schuss.SGD(np.zeros(1), lr=rate)
loss, rates, losses = 2.0, [], []
for _ in range(STEPS):
    rates.append(rate(optimizer.step_count))
    losses.append(loss)
    optimizer.step(np.zeros(1))
    loss += 0.2 * (rate(optimizer.step_count) * 0.8 - loss)
    rate.update(loss)
plateau.plot(rates, label="rate", **LINES[0])
plateau.plot(losses, label="metric", **LINES[2])
plateau.legend(**LEGEND)
plateau.set_title("reduce_on_plateau", fontweight="bold")

for (label, schedule), look in zip(CYCLES, LINES, strict=True):
    momentum.plot([schedule.momentum(t) for t in range(STEPS)], label=label, **look)
momentum.legend(**LEGEND)
momentum.set_title("one_cycle: momentum", fontweight="bold")

for ax in axes.flat:
    draw_grid(ax)
    ax.set(xlim=(0, STEPS - 1), ylim=(-0.05, 1.45), yticks=(0, 0.5, 1))
    ax.xaxis.set_major_locator(MultipleLocator(25))
plateau.set(ylim=(-0.1, 2.9), yticks=(0, 1, 2))
momentum.set(ylim=(0.845, 0.995), yticks=(0.85, 0.9, 0.95))
momentum.set_ylabel("momentum")
for ax in axes[:, 0]:
    ax.set_ylabel("learning rate")
for ax in axes[-1]:
    ax.set_xlabel("step")
show(fig, "07_schedules")
