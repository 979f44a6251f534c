"""The site: ``make site`` writes it to docs/_build/html. Its source folder is the project's root,
so that pages, README and notebooks keep their places and their links."""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import soup_data  # noqa: E402
from docutils.nodes import SkipNode  # noqa: E402
from latex2mathml.converter import convert  # noqa: E402
from myst_nb.core.render import NbElementRenderer  # noqa: E402

project = "LoRA Soups"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/*.ipynb", "*.md", "data/protocol.md"]
exclude_patterns = [
    "docs/_build", "docs/templates", "notebooks/*.running.ipynb", "notebooks/*.failed.ipynb"
]  # fmt: skip

nb_execution_mode = "off"  # the notebooks are committed executed
nb_ipywidgets_js = {}  # no script from another host
nb_render_markdown_format = "myst"  # tables and formulas in outputs too
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"  # the browser's own: no script, no other host

templates_path = [str(Path(__file__).with_name("templates"))]
default_role = "code"  # docstrings write `names` so
autodoc_default_options = {"members": True, "member-order": "bysource"}

html_theme = "sphinx_book_theme"
html_title = "LoRA Soups"
html_extra_path = ["soup"]  # the page that runs the model
html_static_path, html_css_files = [str(Path(__file__).with_name("static"))], ["wide.css"]
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system
html_show_search_summary = False  # it would be fetched, which files may not
html_copy_source = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "footer_content_items": [],
    "navbar_persistent": [],  # the sidebar has the search already
}
if repository := os.environ.get("GITHUB_REPOSITORY"):  # a notebook's page offers to run it there
    html_theme_options |= {
        "repository_url": f"https://github.com/{repository}",
        "repository_branch": "main",
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        },
    }


def _bars(_app, _what, _name, _object, _options, lines):
    """Tables of a docstring are shown as they stand; |x| means no substitution."""
    new, inside = [], False
    for line in lines:
        if line.startswith("|") and not inside:
            new += [".. code-block:: text", ""]
        inside = line.startswith("|")
        outside = re.sub(r"(``.*?``)|\|", lambda found: found[1] or r"\|", line)
        new.append(f"   {line}" if inside else outside)
    lines[:] = new


def _with_alt(render_image):
    """A figure's image keeps the words that stand for it, which myst-nb drops."""

    def inside(renderer, data):
        [image] = render_image(renderer, data)
        image["alt"] = data.output_metadata.get(data.mime_type, {}).get("alt", "")
        return [image]

    return inside


def _data(app, exception):
    if exception is None:
        soup_data.write(Path(app.srcdir), Path(app.outdir))


def _math(display):
    def visit(translator, node):
        translator.body.append(convert(node.astext(), display=display))
        raise SkipNode

    return visit, None


def setup(app):
    NbElementRenderer.render_image = _with_alt(NbElementRenderer.render_image)
    app.add_html_math_renderer("mathml", _math("inline"), _math("block"))
    app.connect("autodoc-process-docstring", _bars)
    app.connect("build-finished", _data)
