"""Sphinx's configuration: ``make doc`` builds these pages into ``build/docs``."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.images import get_image_size

import sb3_lql

project = "sb3_lql"
author = "The sb3_lql authors"
version = release = sb3_lql.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
# Parts of other pages, and what the commands that make them have written beside their figures
exclude_patterns = [
    "_static",
    "shared",
    "bandit/chains.md",
    "bandit/distances.md",
    "multi_goal/table.md",
    "benchmark/*/runs",
]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"sb3_lql {version}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["custom.css"]
copybutton_exclude = ".linenos, .gp"

# The parts of MathJax 3.2.2 that these pages use, in _static/mathjax: the site works without a network. SVG needs no
# font files, which browsers do not load for pages opened from a disk.
mathjax_path = "mathjax/startup.js"
mathjax3_config = {"loader": {"load": ["input/tex", "output/svg", "a11y/assistive-mml"]}}

#: Pixels of a line of text on a desktop
WIDTH = 700
#: Characters of inline code that break neither between words nor, on a phone, within one
SHORT, UNBROKEN = 20, 34


def fit_phones(app: Sphinx, doctree: nodes.document) -> None:
    """Mark what custom.css treats specially on a phone, and link each figure to its full size."""
    for literal in doctree.findall(nodes.literal):
        if len(literal.astext()) <= SHORT:
            literal["classes"].append("short")
        elif any(len(word) > UNBROKEN for word in literal.astext().split()):
            literal["classes"].append("long")
    for image in doctree.findall(nodes.image):
        width, height = get_image_size(app.srcdir / image["uri"]) or (0, 0)
        if width >= WIDTH:
            image.setdefault("width", "100%")  # Sphinx links images that have a width
        if width > 1.7 * height:
            image["classes"].append("wide")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("doctree-read", fit_phones)
    return {"parallel_read_safe": True}
