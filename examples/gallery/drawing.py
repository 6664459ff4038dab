"""Shared by the gallery's scripts, `plot_*.py`: figures in one style, contour plots with paths, saving figures."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator
from threadpoolctl import threadpool_limits

sys.path.append(str(Path(__file__).parents[1]))  # for style.py and network.py

from style import FAINT, INK
from style import style as style

threadpool_limits(1)  # the matrices of these scripts are too small for more threads to help

FOLDER = Path("build", "gallery")
SETTINGS = {
    "figure.dpi": 100,
    "savefig.dpi": 120,
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
}
_CONTOURS = LinearSegmentedColormap.from_list("contours", ["#D3E0EA", "#FFFFFF"])  # low values are darker


def new_figure(title, rows=1, columns=1, size=(10, 4), mosaic=None, **options):
    """A figure and its axes in the gallery's style; with `mosaic`, as for `subplot_mosaic`, a dict of axes."""
    plt.rcParams.update(SETTINGS)  # not at import, because the documentation's build resets them for each script
    fig = plt.figure(figsize=size, layout="constrained")
    fig.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
    axes = fig.subplots(rows, columns, **options) if mosaic is None else fig.subplot_mosaic(mosaic, **options)
    fig.suptitle(title, x=0.012, ha="left", fontsize=14)
    return fig, axes


def show(fig, name, animation=None):
    """Opens a window, or without a screen saves `build/gallery/<name>.png`, for an animation `<name>.gif`."""
    collected = "sphinx_gallery" in sys.modules  # the documentation's build collects the figures
    if collected or fig.canvas.required_interactive_framework:
        plt.show()
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    if animation is None:
        path = FOLDER / f"{name}.png"
        fig.savefig(path)
    else:
        path = FOLDER / f"{name}.gif"
        animation.save(path, writer="pillow", dpi=80)
    print(f"Saved {path}")


def descend(make_optimizer, gradient, start, steps):
    """The positions of an optimizer, including the start: (steps + 1, 2)."""
    x = np.array(start, np.float64)
    optimizer = make_optimizer(x)
    path = [x.copy()]
    for _ in range(steps):
        optimizer.step(gradient(x))  # changes x in place
        path.append(x.copy())
    return np.array(path)


def draw_contours(ax, f, x_limits, y_limits, levels=12, labels=("$x_1$", "$x_2$")):
    """Contours of `f`, a function of an array of shape (2, ...). `levels` is their number, or their values."""
    x1, x2 = np.meshgrid(np.linspace(*x_limits, 301), np.linspace(*y_limits, 301))
    values = f(np.array([x1, x2]))
    if np.isscalar(levels):  # evenly spaced in the square root of f, so closer where f is flat
        low, high = values.min(), values.max()
        levels = low + (high - low) * np.linspace(0, 1, levels + 1) ** 2
    ax.contourf(x1, x2, values, levels=levels, cmap=_CONTOURS)
    ax.contour(x1, x2, values, levels=levels, colors="#9FB3C4", linewidths=0.6, linestyles="solid")
    ax.set(xlim=x_limits, ylim=y_limits)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])


def draw_path(ax, path, look, label=None, size=4.5, marker="o"):
    """A path with a dot for each step; the start is a ring."""
    ax.plot(*path.T, marker=marker, ms=size, mec="white", mew=0.6, lw=1.4, label=label, **look)
    ax.plot(*path[0], "o", ms=size + 3.5, mfc="white", mec=look["color"], mew=1.6)


def draw_minimum(ax, at=(0, 0)):
    ax.plot(*at, "+", color=INK, ms=14, mew=1.4, zorder=1.5)


def draw_title(ax, name, settings):
    """The optimizer's name in its colour, its settings on the right."""
    ax.set_title(name, color=style(name)["color"], fontweight="bold")
    ax.set_title(settings, loc="right", fontsize=9.5)


def draw_label(ax, x, y, text, look, **options):
    """The name of a line, next to it."""
    ax.annotate(text, (x, y), xytext=(5, 5), textcoords="offset points", color=look["color"], **options)


def draw_grid(ax):
    ax.grid(color=FAINT, lw=0.5)
    ax.set_axisbelow(True)
