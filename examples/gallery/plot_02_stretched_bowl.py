r"""
Steepest descent on a stretched bowl
====================================

:math:`f(x) = 0.2\,x_1^2 + 2\,x_2^2 - 5` is ten times as steep along :math:`x_2` as along :math:`x_1`, and plain SGD has
one learning rate for both. A step multiplies :math:`x_2` by :math:`1 - 4\,\mathrm{lr}`, which is :math:`-1` at a
learning rate of 0.5. With 0.05 there is no oscillation, but progress along :math:`x_1` is slow, and 20 steps are not
enough. Just below 0.5, :math:`x_2` changes its sign in every step and shrinks by only 0.4 %, so that convergence takes
more than a thousand steps. Just above 0.5 it grows in every step, and the descent diverges.
"""

from functools import partial

from drawing import descend, draw_contours, draw_grid, draw_minimum, draw_path, new_figure, show, style

import schuss


def f(x):
    return 0.2 * x[0] ** 2 + 2 * x[1] ** 2 - 5


def gradient(x):
    return x * (0.4, 4)


# %%
# Three learning rates, 20 steps each, from the same start. The last plot shows the distance of the function value from
# its minimum on a logarithmic axis; for a quadratic function these become straight lines.

fig, axes = new_figure("Plain SGD on a stretched bowl: one learning rate for two slopes", 2, 2, size=(11, 6.6))
runs = (
    (axes[0, 0], 0.05, "too small for $x_1$: slow"),
    (axes[0, 1], 0.499, "just below 0.5: it oscillates"),
    (axes[1, 0], 0.52, "just above 0.5: it diverges"),
)
for (ax, lr, comment), dashes in zip(runs, ("-", (0, (5, 1.5)), (0, (1.2, 1.2))), strict=True):
    path = descend(partial(schuss.SGD, lr=lr), gradient, start=(6, 3), steps=20)
    draw_contours(ax, f, (-7.5, 7.5), (-6.5, 6.5))
    draw_minimum(ax)
    draw_path(ax, path, style("SGD"))
    ax.set_title(f"lr {lr}, {comment}")
    heights = f(path.T) + 5
    axes[1, 1].plot(heights, **{**style("SGD"), "linestyle": dashes})
    axes[1, 1].annotate(f"lr {lr}", (20, heights[-1]), xytext=(5, -3), textcoords="offset points")

axes[1, 1].set(
    title="Height above the minimum",
    xlabel="step",
    ylabel="f(x) + 5",
    yscale="log",
    xlim=(0, 20),
    xticks=range(0, 21, 5),
)
draw_grid(axes[1, 1])
show(fig, "02_stretched_bowl")
