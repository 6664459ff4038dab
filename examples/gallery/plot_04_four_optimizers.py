r"""
Four optimizers from one start
==============================

SGD, SGD with momentum, RMSprop and Adam start at the same point of :math:`f(x) = 0.05\,x_1^2 + x_2^2`, which is twenty
times steeper along :math:`x_2` than along :math:`x_1`. SGD first reduces :math:`x_2`, and is then left with small
gradients along :math:`x_1`. Momentum is faster, but oscillates along :math:`x_2` and overshoots the minimum before it
returns. RMSprop and Adam scale both coordinates alike and go diagonally towards the minimum: RMSprop directly, Adam
with the overshoot of its momentum.
"""

from functools import partial

import numpy as np
from drawing import descend, draw_contours, draw_grid, draw_label, draw_minimum, new_figure, show, style
from matplotlib.animation import FuncAnimation

import schuss


def f(x):
    return 0.05 * x[0] ** 2 + x[1] ** 2


def gradient(x):
    return x * (0.1, 2)


STEPS = 60
OPTIMIZERS = {
    "SGD": partial(schuss.SGD, lr=0.1),
    "SGD momentum": partial(schuss.SGD, lr=0.1, momentum=0.9),
    "RMSprop": partial(schuss.RMSprop, lr=0.3, alpha=0.9),
    "Adam": partial(schuss.Adam, lr=0.4),
}
paths = {name: descend(make, gradient, start=(-8, 2.6), steps=STEPS) for name, make in OPTIMIZERS.items()}

# %%
# The complete paths. The large dots are the positions after 20 steps.


def draw_axes(title):
    """Both plots without paths, and for each optimizer its lines and dots."""
    fig, (ground, loss) = new_figure(title, columns=2, size=(12, 4.8), width_ratios=[1.6, 1])
    draw_contours(ground, f, (-9, 3.5), (-3.2, 3.2), levels=16)
    draw_minimum(ground)
    ground.plot(-8, 2.6, "o", ms=9, mfc="white", mec="#222222", mew=1.6, zorder=4)
    loss.set(title="Loss", xlabel="step", ylabel="f(x)", xlim=(0, STEPS), yscale="log", ylim=(1e-4, 20))
    loss.minorticks_off()  # they would take most of the drawing time
    loss.yaxis.set_major_formatter(lambda height, _: f"{height:g}")
    draw_grid(loss)
    artists = {}
    for name in OPTIMIZERS:
        look = style(name)
        line = ground.plot([], [], marker="o", ms=3, mec="white", mew=0.4, lw=1.5, label=name, **look)[0]
        curve = loss.plot([], [], **look)[0]
        dots = [
            ax.plot([], [], "o", ms=9, mec="white", mew=1, color=look["color"], zorder=5)[0] for ax in (ground, loss)
        ]
        artists[name] = line, curve, dots
    return fig, ground, loss, artists


def place(artists, step, dot):
    for name, (line, curve, dots) in artists.items():
        path = paths[name]
        height = f(path.T)
        line.set_data(*path[: step + 1].T)
        curve.set_data(np.arange(step + 1), height[: step + 1])
        dots[0].set_data(*path[dot : dot + 1].T)
        dots[1].set_data([dot], [height[dot]])


fig, ground, loss, artists = draw_axes("Four optimizers, one start")
place(artists, STEPS, dot=20)
for name, x1, x2 in (("SGD", -7.2, -0.5), ("SGD momentum", -4.4, 1.35), ("RMSprop", -6.2, 0.95), ("Adam", -3.3, -1.45)):
    draw_label(ground, x1, x2, name, style(name), fontweight="bold")
for name, step, height in (("SGD", 45, 1.6), ("SGD momentum", 27, 0.7), ("RMSprop", 41, 2e-4), ("Adam", 31, 0.018)):
    draw_label(loss, step, height, name.removeprefix("SGD "), style(name))
show(fig, "04_four_optimizers")

# %%
# The same as an animation.

fig, ground, loss, artists = draw_axes("Four optimizers, one start")
ground.legend(loc="lower right", ncols=2)
fig.draw_without_rendering()
fig.set_layout_engine("none")  # keeps the layout, instead of computing it again for each frame


def draw_frame(step):
    place(artists, step, dot=step)


frames = [*range(0, STEPS + 1, 2), *[STEPS] * 5]
animation = FuncAnimation(fig, draw_frame, frames=frames, interval=150)
show(fig, "04_four_optimizers", animation)
