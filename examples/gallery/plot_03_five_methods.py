r"""
Five methods on a stretched bowl
================================

The same :math:`f(x) = 0.2\,x_1^2 + 2\,x_2^2 - 5`. Plain SGD is grey; its learning rate of 0.5 makes it oscillate
without end. A momentum of 0.1 at the same learning rate damps the oscillation, because steps in opposite directions
cancel in the velocity. Adagrad divides each coordinate by the root of the sum of its squared gradients, which gives
both coordinates the same scale: a learning rate of 3.7 is not too large, and four steps reach the minimum. RMSprop
forgets old gradients, so its steps do not shrink, and it does not oscillate. Adam adds momentum to RMSprop's scaling:
it starts diagonally towards the minimum, overshoots and spirals in. Without bias correction its first step is
:math:`0.1 / \sqrt{0.001} = 3.2` times as long as the learning rate, and the oscillation is larger.
"""

from functools import partial

from drawing import (
    descend,
    draw_contours,
    draw_grid,
    draw_label,
    draw_minimum,
    draw_path,
    draw_title,
    new_figure,
    show,
    style,
)

import schuss


def f(x):
    return 0.2 * x[0] ** 2 + 2 * x[1] ** 2 - 5


def gradient(x):
    return x * (0.4, 4)


# %%
# Name of the colour, settings, constructor, and position of the label in the last plot.

METHODS = [
    (
        "SGD momentum",
        "lr 0.5 (in velocity), mu 0.1",
        partial(schuss.SGD, lr=0.5, momentum=0.1, momentum_form="velocity"),
        (20.2, 1e-3),
    ),
    ("Adagrad", "lr 3.7", partial(schuss.Adagrad, lr=3.7), (6.2, 1.1e-4)),
    ("RMSprop", "lr 0.5, alpha 0.9", partial(schuss.RMSprop, lr=0.5, alpha=0.9), (8, 1e-3)),
    ("Adam", "lr 0.3, without bias correction", partial(schuss.Adam, lr=0.3, bias_correction=False), (11, 4.5)),
    ("Adam", "lr 0.3, with it", partial(schuss.Adam, lr=0.3), (8.2, 0.55)),
]
STEPS = 30

fig, axes = new_figure("Five methods on a stretched bowl", 2, 3, size=(13, 6.8))
heights = axes[1, 2]
plain = descend(partial(schuss.SGD, lr=0.5), gradient, start=(6, 3), steps=STEPS)
heights.plot(f(plain.T) + 5, **style("SGD"))
draw_label(heights, 25, 17, "SGD", style("SGD"))
for ax, (name, settings, make_optimizer, place) in zip(axes.flat, METHODS, strict=False):
    path = descend(make_optimizer, gradient, start=(6, 3), steps=STEPS)
    look = style(name)
    draw_contours(ax, f, (-7.5, 7.5), (-4, 4))
    draw_minimum(ax)
    ax.plot(*plain.T, lw=0.9, alpha=0.6, **style("SGD"))
    draw_path(ax, path, look)
    draw_title(ax, name, settings)
    label = name.removeprefix("SGD ")
    if "without" in settings:
        label, look = "Adam, uncorrected", {**look, "linestyle": (0, (1.2, 1.2))}
    heights.plot(f(path.T) + 5, **look)
    draw_label(heights, *place, label, look)

heights.set(title="Height above the minimum", xlabel="step", ylabel="f(x) + 5", xlim=(0, STEPS))
heights.set(yscale="log", ylim=(1e-4, 60))
draw_grid(heights)
show(fig, "03_five_methods")
