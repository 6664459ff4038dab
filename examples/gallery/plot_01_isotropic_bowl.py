r"""
Steepest descent on a round bowl
================================

For :math:`f(x) = 0.2\,x_1^2 + 0.2\,x_2^2 - 5` the negative gradient points to the minimum, so that the learning rate of
plain SGD only decides how far each step goes. With a learning rate of 1 each step leaves 60 % of the distance. With
2.5, the inverse of the curvature 0.4, the first step reaches the minimum.
"""

from functools import partial

import numpy as np
from drawing import descend, draw_contours, draw_grid, draw_minimum, draw_path, new_figure, show, style

import schuss


def f(x):
    return 0.2 * x[0] ** 2 + 0.2 * x[1] ** 2 - 5


def gradient(x):
    return 0.4 * x


# %%
# The optimizer changes the array in place. This loop is the whole descent; the other figures use
# ``drawing.descend``.

x = np.array([6.0, 6.0])
optimizer = schuss.SGD(x, lr=2.5)
for step in range(2):
    print(f"step {step}: x = {x}, f = {f(x):.3f}")
    optimizer.step(gradient(x))

# %%
# The paths of both learning rates, and the values of the function.

fig, axes = new_figure("Plain SGD on a round bowl", columns=3, size=(11, 4.1))
for ax, lr, mark in ((axes[0], 1.0, "o"), (axes[1], 2.5, "s")):
    path = descend(partial(schuss.SGD, lr=lr), gradient, start=(6, 6), steps=10)
    draw_contours(ax, f, (-7.5, 7.5), (-7.5, 7.5))
    draw_minimum(ax)
    draw_path(ax, path, style("SGD"), size=6)
    ax.set_aspect("equal")
    axes[2].plot(f(path.T), marker=mark, ms=6, mec="white", mew=0.6, **style("SGD"))
axes[0].set_title("lr 1: each step is 60 % of the one before")
axes[1].set_title("lr 2.5: one step")

axes[2].set(
    title="Function value after each step", xlabel="step", ylabel="f(x)", xticks=range(0, 11, 2), ylim=(-6.5, 10)
)
axes[2].annotate("lr 1", (2, -3.1), xytext=(6, 5), textcoords="offset points")
axes[2].annotate("lr 2.5", (1, -5), xytext=(-4, -17), textcoords="offset points")
draw_grid(axes[2])
show(fig, "01_isotropic_bowl")
