"""Shows the gallery's animations as GIFs, which sphinx-gallery itself cannot put on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_animations(block: Any, variables: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Saves the animations of a block's open figures, and returns them as reStructuredText."""
    from matplotlib import pyplot as plt
    from matplotlib.animation import Animation
    from sphinx_gallery.scrapers import figure_rst

    paths = []
    for animation in variables["example_globals"].values():
        if isinstance(animation, Animation) and plt.fignum_exists(animation._fig.number):
            paths.append(Path(next(variables["image_path_iterator"])).with_suffix(".gif"))
            animation.save(paths[-1], writer="pillow", dpi=80)
            plt.close(animation._fig)  # sphinx-gallery saves all figures that are still open
    return figure_rst(paths, gallery_conf["src_dir"])
