"""Makes the gallery's pages from its scripts: figures, thumbnails, the order of a page, downloads.

A script ends each figure with ``drawing.show``, which opens or saves it. For the pages it is replaced by a function
that collects the figure, so that a script may draw one figure in several blocks. Animations become GIFs. A page shows
its figures below its introduction, and the script folded. A download has the modules that the script imports.
"""

from __future__ import annotations

import ast
import re
import shutil
import textwrap
import zipfile
from pathlib import Path
from typing import Any

ANIMATION_DPI = 80
THUMBNAIL_WIDTH = 640  # pixels
SCRIPTS = Path(__file__).parents[2] / "examples" / "gallery"
_shown: list[tuple[Any, Any, Any]] = []


def _show(fig: Any, name: str, animation: Any = None, thumbnail: Any = None) -> None:
    _shown.append((fig, animation, thumbnail))


def collect_figures(gallery_conf: dict[str, Any], script: str) -> None:
    """Replaces ``show``; runs before each script."""
    import drawing

    drawing.show = _show
    _shown.clear()


def _save_panel(fig: Any, path: Path, chosen: Any) -> None:
    """Saves one plot of a figure, because a figure of many plots is too small to read."""
    areas = [axes.get_position().width * axes.get_position().height for axes in fig.axes]
    largest = next(axes for axes, area in zip(fig.axes, areas, strict=True) if area > 0.99 * max(areas))
    chosen = chosen or largest
    chosen.tick_params(labelbottom=True, labelleft=True)
    for other in set(fig.axes) - {chosen}:
        other.set_visible(False)
    box = chosen.get_tightbbox().transformed(fig.dpi_scale_trans.inverted()).padded(0.08)
    fig.savefig(path, bbox_inches=box, dpi=THUMBNAIL_WIDTH / box.width)


def scraper(block: Any, variables: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """The figures that a block has shown, as reStructuredText."""
    from matplotlib import pyplot as plt
    from sphinx_gallery.scrapers import figure_rst

    paths = []
    while _shown:
        fig, animation, thumbnail = _shown.pop(0)
        path = Path(next(variables["image_path_iterator"])).with_suffix(".png" if animation is None else ".gif")
        if animation is None:
            fig.savefig(path)
            panel = path.parent / "panels" / f"{Path(variables['src_file']).stem}.png"
            panel.parent.mkdir(exist_ok=True)
            _save_panel(fig, panel, thumbnail)
        else:
            animation.save(path, writer="pillow", dpi=ANIMATION_DPI)
        plt.close(fig)
        paths.append(str(path))
    return figure_rst(paths, gallery_conf["src_dir"]) if paths else ""


def modules(script: Path) -> list[Path]:
    """A script and the modules of `examples` that it needs, directly or not."""
    folders, found = (SCRIPTS, SCRIPTS.parent), [script]
    for path in found:  # grows
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            own = [folder / f"{name}.py" for name in names for folder in folders]
            found += [path for path in own if path.exists() and path not in found]
    return found


def _finish(app: Any) -> None:
    """Replaces thumbnails by panels, and sphinx-gallery's archives, which lack the modules; runs after it."""
    folder = Path(app.srcdir) / "gallery"
    for panel in folder.glob("images/panels/*.png"):
        shutil.copyfile(panel, folder / "images" / "thumb" / f"sphx_glr_{panel.stem}_thumb.png")
    for script in SCRIPTS.glob("plot_*.py"):
        with zipfile.ZipFile(folder / f"{script.stem}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in modules(script):
                archive.write(path, f"{script.stem}/{path.name}")


def _arranged(app: Any, page: str, source: list[str]) -> None:
    """Puts the figures of a page in front of its script, and folds that."""
    name = page.removeprefix("gallery/plot_")
    if name == page:
        return
    head, _, rest = source[0].partition("\n.. GENERATED FROM PYTHON SOURCE LINES")
    body, _, _ = rest.partition("\n.. _sphx_glr_download_")
    body = ".. GENERATED FROM PYTHON SOURCE LINES" + re.sub(
        r"\n\.\. rst-class:: sphx-glr-timing\n.*", "", body, flags=re.S
    )
    image = r"^(?:\.\. rst-class:: sphx-glr-horizontal\n+(?: .*\n|\n)+|\.\. image-sg:: .*\n(?:   .*\n)+)"
    figures = re.findall(image, body, re.MULTILINE)
    script = textwrap.indent(re.sub(image, "", body, flags=re.MULTILINE), "   ")
    link = f":download:`plot_{name}.zip <plot_{name}.zip>`"
    source[0] = "\n".join(
        [
            head,
            f"\n.. _sphx_glr_download_gallery_plot_{name}.py:\n",
            *figures,
            f"\nThe script with the modules that it imports: {link}\n",
            ".. dropdown:: The script\n",
            script,
        ]
    )


def setup(app: Any) -> dict[str, bool]:
    """Registers what is done to sphinx-gallery's output."""
    app.connect("builder-inited", _finish, priority=900)
    app.connect("source-read", _arranged)
    return {"parallel_read_safe": True}
