r"""
Minimizing a quadratic form
===========================

Near a minimum every smooth function is close to a quadratic form, :math:`f(\theta) = \tfrac12 \theta^\top P \theta +
q^\top \theta`. Here its axes are rotated against the coordinates, and its curvatures are 1 and 10. SGD: a larger
learning rate is faster, until it oscillates in the direction of the larger curvature. Newton uses the curvature and
needs one step. Momentum as a moving average starts from zero, so its first steps are short; bias correction makes the
first one a full step of SGD. NAG evaluates the gradient at the look-ahead point and damps the oscillation that plain
momentum has. Adam scales the coordinates separately, which helps little if the axes of the function are rotated against
them, and it oscillates too.
"""

from functools import partial

import numpy as np
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

# %%
# The function, its gradient and its minimum.

turn = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
P = turn @ np.diag([1.0, 10.0]) @ turn.T
q = np.array([-1.0, -2.0])
minimum = np.linalg.solve(P, -q)
START, STEPS = (-3.0, 1.2), 40


def f(x):
    return 0.5 * np.einsum("i...,ij,j...->...", x, P, x) + np.einsum("i,i...->...", q, x)


def gradient(x):
    return P @ x + q


# %%
# Newton's step also takes the Hessian. NAG's step takes a function, which computes the gradient at the look-ahead
# point.


def descend_newton(steps):
    x = np.array(START)
    optimizer = schuss.Newton(x)
    path = [x.copy()]
    for _ in range(steps):
        optimizer.step(gradient(x), P)
        path.append(x.copy())
    return np.array(path)


def descend_nag(steps, **settings):
    x = np.array(START)
    optimizer = schuss.NAG(x, **settings)
    path = [x.copy()]
    for _ in range(steps):
        optimizer.step(lambda: gradient(x))
        path.append(x.copy())
    return np.array(path)


def sgd(steps=STEPS, **settings):
    return descend(partial(schuss.SGD, **settings), gradient, START, steps)


# sphinx_gallery_defer_figures
fig, axes = new_figure(r"Minimizing $\frac{1}{2}\,\theta^\top P\,\theta + q^\top \theta$", 2, 3, size=(13, 7.6))
for ax in axes.flat[:5]:
    draw_contours(ax, f, (-4.2, 4.2), (-3.2, 3.2), labels=(r"$\theta_1$", r"$\theta_2$"))
    draw_minimum(ax, minimum)
    ax.set_aspect("equal")
ax_sgd, ax_newton, ax_momentum, ax_nag, ax_adam, ax_loss = axes.flat

shades = zip(("#A8A8A8", "#7A7A7A", "#333333"), ("o", "s", "^"), (0.02, 0.1, 0.19), strict=True)
for colour, marker, lr in shades:
    draw_path(ax_sgd, sgd(lr=lr), {**style("SGD"), "color": colour}, label=f"lr {lr}", marker=marker)
draw_title(ax_sgd, "SGD", "three learning rates")

newton = descend_newton(1)
draw_path(ax_newton, newton, style("Newton"), size=6)
draw_title(ax_newton, "Newton", "one step")

average = partial(sgd, lr=0.1, momentum=0.9, momentum_form="ema")
draw_path(ax_momentum, average(steps=16), style("SGD momentum"), label="from zero")
dashes = (0, (1.2, 1.2))
corrected = {**style("SGD momentum"), "linestyle": dashes}
draw_path(ax_momentum, average(steps=16, debias=True), corrected, label="bias-corrected", marker="s")
draw_title(ax_momentum, "SGD momentum", "moving average, lr 0.1, mu 0.9")

plain, nag = sgd(lr=0.06, momentum=0.9), descend_nag(STEPS, lr=0.06, momentum=0.9)
draw_path(ax_nag, plain, style("SGD momentum"), label="plain momentum", size=3.5)
draw_path(ax_nag, nag, style("NAG"), label="look-ahead", marker="s")
draw_title(ax_nag, "NAG", "lr 0.06, momentum 0.9")

adam = descend(partial(schuss.Adam, lr=0.3), gradient, START, STEPS)
draw_path(ax_adam, adam, style("Adam"))
draw_title(ax_adam, "Adam", "lr 0.3")
for ax in (ax_sgd, ax_momentum, ax_nag):
    ax.legend(loc="lower right", fontsize=9)

# %%
# The function values. Newton's line leaves the plot.

heights = [
    ("SGD", "SGD, lr 0.1", sgd(lr=0.1), (22.5, 0.0011)),
    ("SGD momentum", "plain momentum", plain, (13, 13)),
    ("NAG", "NAG", nag, (35, 0.017)),
    ("Newton", "Newton", newton, (1, 2e-6)),
    ("Adam", "Adam", adam, (22, 2.2)),
]
for name, label, path, place in heights:
    ax_loss.plot(np.maximum(f(path.T) - f(minimum), 1e-12), **style(name))
    draw_label(ax_loss, *place, label, style(name))
ax_loss.set(title="Height above the minimum", xlabel="step", ylabel="f(θ) − f(minimum)", xlim=(0, STEPS))
ax_loss.set(yscale="log", ylim=(1e-6, 100))
draw_grid(ax_loss)
show(fig, "05_quadratic_form")
