"""Configuration of the documentation: ``sphinx-build -W --keep-going -b html docs build/docs``.

The build and the pages need no network: MathJax comes from a package.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import schuss  # noqa: E402 - the path comes first

project = "schuss"
author = "the schuss contributors"
project_copyright = author
version = release = schuss.__version__
language = "en"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "optimizer_pages",
]
exclude_patterns = ["_ext", "_templates", "**/*.inc"]
templates_path = ["_templates"]
default_role = "autolink"
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(array|array_like|callable|optional|path|structure.*)")]

autodoc_typehints = "none"
# The documentation of what is built on them needs neither.
autodoc_mock_imports = ["torch", "flwr"]
autodoc_member_order = "bysource"
autosummary_generate = True
autosummary_imported_members = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
python_maximum_signature_line_length = 80
add_function_parentheses = False
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# The gallery: every examples/gallery/plot_*.py, run in the order of the names.
GALLERY = HERE.parent / "examples" / "gallery"
sys.path += [str(GALLERY), str(GALLERY.parent)]  # for the modules that the scripts share
sphinx_gallery_conf = {
    "examples_dirs": str(GALLERY),
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(^|/)(?!plot_)[^/]*\.py$",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("gallery.save_animations", "matplotlib"),
    "reset_modules": ("matplotlib",),
    "doc_module": ("schuss",),
    "backreferences_dir": "gallery/backreferences",
    "notebook_extensions": set(),
    "download_all_examples": False,
    "capture_repr": (),
    "write_computation_times": False,
    "show_signature": False,
    "thumbnail_size": (800, 480),
    "min_reported_time": 5,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "schuss"
html_static_path = ["_static"]
html_css_files = ["schuss.css"]
html_favicon = "_static/logo.svg"
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "changes": [], "speed": []}
html_theme_options = {
    "logo": {"text": "schuss", "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg"},
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "show_prev_next": True,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}

# The repository's address; `make docs` takes that of the remote `origin`. Without one there are no links to it.
REPOSITORY = os.environ.get("REPOSITORY", "")
if REPOSITORY:
    html_theme_options |= {
        "icon_links": [{"name": "Repository", "url": REPOSITORY, "icon": "fa-solid fa-code-branch"}],
        "navbar_end": ["theme-switcher", "navbar-icon-links"],
        "use_edit_page_button": True,
        "secondary_sidebar_items": ["page-toc", "edit-this-page"],
    }


def _edit_links(app, page, template, context, doctree):
    """Where the text of a page can be edited; that of an optimizer's page is in its class, a script's in its source."""
    folder, _, name = page.rpartition("/")
    source = app.env.doc2path(page, base=False) if page in app.env.found_docs else None
    path = f"docs/{source}"
    if folder == "optimizers/generated":
        path = f"python/{getattr(schuss, name).__module__.replace('.', '/')}.py"
    elif folder == "gallery":
        path = f"examples/gallery/{name}.py" if name != "index" else "examples/gallery/GALLERY_HEADER.rst"
    elif folder == "api/generated":
        path = "python/schuss"
    url = f"{REPOSITORY}/{'tree' if folder == 'api/generated' else 'edit'}/main/{path}"
    context["sourcename"] = str(source or "")
    # The theme wants the word `file_name` in it; this one is a comment of Jinja.
    context |= {"edit_page_url_template": url + "{# file_name #}", "edit_page_provider_name": ""}


# MathJax 3 from the package sphinx-mathjax-offline; only the component in use and its fonts are copied.
MATHJAX = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {
    "chtml": {"displayAlign": "left", "displayIndent": "1em"},
    "options": {"enableMenu": False},
}


def _copy_mathjax(app, error):
    from shutil import copytree

    if error is None and app.builder.format == "html":
        wanted = {"tex-chtml.js", "output", "chtml", "fonts", "woff-v2"}

        def ignored(folder, names):
            return [name for name in names if name not in wanted and not name.endswith(".woff")]

        copytree(MATHJAX, Path(app.outdir, "_static", "mathjax"), ignore=ignored, dirs_exist_ok=True)


def setup(app):
    """Copies MathJax into the build, for the pages to load."""
    app.connect("build-finished", _copy_mathjax)
    if REPOSITORY:
        app.connect("html-page-context", _edit_links, priority=400)  # before the theme reads it
