"""The documentation's settings: `sphinx-build -W docs docs/_build` makes the site, and fails on a broken link."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from _config_reference import write_reference

project = "lightning_rm"
author = "the lightning_rm authors"
release = version = installed("lightning-rm")
html_title = "lightning_rm"
html_show_copyright = False
default_role = "code"  # what docstrings have in backticks
maximum_signature_line_length = 88  # a longer one has a line for each parameter

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # the script lies beside the pages, which ask no other site for it
    "sphinx_copybutton",
    "sphinx_design",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
nitpicky = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"sidebar_hide_name": False}
copybutton_prompt_text = "$ "

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Yields"]

# Written anew for every build, from the files that the commands read.
write_reference(Path(__file__).parents[1] / "conf", Path(__file__).parent / "reference" / "config.md")
