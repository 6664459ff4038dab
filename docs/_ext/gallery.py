"""Collects the figures of the gallery's scripts for the pages.

A script ends each figure with ``drawing.show``, which opens or saves it. For the pages it is replaced by a function
that collects the figure, so that a script may draw one figure in several blocks. Animations become GIFs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ANIMATION_DPI = 80
_shown: list[tuple[Any, Any]] = []


def _show(fig: Any, name: str, animation: Any = None) -> None:
    _shown.append((fig, animation))


def collect_figures(gallery_conf: dict[str, Any], script: str) -> None:
    """Replaces ``show``; runs before each script."""
    import drawing

    drawing.show = _show
    _shown.clear()


def scraper(block: Any, variables: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """The figures that a block has shown, as reStructuredText."""
    from matplotlib import pyplot as plt
    from sphinx_gallery.scrapers import figure_rst

    paths = []
    while _shown:
        fig, animation = _shown.pop(0)
        path = Path(next(variables["image_path_iterator"])).with_suffix(".png" if animation is None else ".gif")
        if animation is None:
            fig.savefig(path)
        else:
            animation.save(path, writer="pillow", dpi=ANIMATION_DPI)
        plt.close(fig)
        paths.append(str(path))
    return figure_rst(paths, gallery_conf["src_dir"]) if paths else ""
