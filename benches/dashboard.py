"""Makes the pages that ``asv publish`` wrote need no network: their scripts and styles become copies beside them.

    python benches/dashboard.py benches/.asv/html

A copy is the file of that name in ``benches/scripts``, or else in a package of pyproject.toml's group ``dashboard``.
Benchmarks that were not run are left out of the pages.
"""

import importlib.metadata
import json
import re
import shutil
import sys
from pathlib import Path

OWN = Path(__file__).resolve().parent / "scripts"
PACKAGES = ["js.jquery-flot", "xstatic-bootstrap", "xstatic-jquery"]
# What a browser loads by itself, and its address.
LOADED = re.compile(r"(<(?:script|link)\b[^>]*?\b(?:src|href)=\"((?:https?:)?//[^\"]*)\"[^>]*>)")
CHECKS = re.compile(r"\s(?:integrity|crossorigin|referrerpolicy)=\"[^\"]*\"")
VERSION = re.compile(r"-\d[\d.]*\d(?=\.)")  # as in jquery-3.3.1.min.js


def available(packages):
    """The files that may be copied, by name."""
    packaged = (Path(str(path.locate())) for name in packages for path in importlib.metadata.files(name) or ())
    return {path.name: path for path in [*packaged, *OWN.iterdir()]}


def localize(folder, files):
    """Rewrites the pages in a folder; their copies go to ``folder/local``, each kind of file to a folder of its own."""

    def local(match):
        tag, address = match.groups()
        name = VERSION.sub("", address.rpartition("/")[2])
        if name not in files:
            raise SystemExit(f"The page loads {address}: put a {name} into {OWN}, or a package with it into PACKAGES.")
        return CHECKS.sub("", tag).replace(address, copy(name))

    def copy(name):
        place = Path("local", Path(name).suffix[1:].replace("woff", "fonts"), name)
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[name], folder / place)
        return place.as_posix()

    for page in folder.glob("*.html"):
        page.write_text(LOADED.sub(local, page.read_text("utf-8")), "utf-8")
    for name in files:
        if name.endswith(".woff"):  # Bootstrap's style looks for its font in ../fonts
            copy(name)


def leave_out_unmeasured(folder):
    """Takes benchmarks without results off the pages, which would ask for their graphs."""
    path = folder / "index.json"
    index = json.loads(path.read_text("utf-8"))
    measured = {graph.stem for graph in folder.glob("graphs/summary/*.json")}
    index["benchmarks"] = {name: own for name, own in index["benchmarks"].items() if name in measured}
    path.write_text(json.dumps(index), "utf-8")


if __name__ == "__main__":
    html = Path(sys.argv[1])
    localize(html, available(PACKAGES))
    leave_out_unmeasured(html)
