"""Sphinx's configuration: ``make doc`` builds these pages into ``build/docs``."""

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
exclude_patterns = ["shared", "bandit/chains.md", "bandit/distances.md", "multi_goal/table.md", "benchmark/*/runs"]

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
