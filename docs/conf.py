"""The documentation site: `make docs`. Its sources are the Markdown files of the whole project, with their links."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "python"))

import distill  # noqa: E402 - of this source tree

project = "distill"
release = distill.__version__
project_copyright = "the distill authors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
root_doc = "docs/index"
# The root of the project is the root of the site, so that the links between its files are those of the repository.
include_patterns = ["docs/**.md", "docs/api/*.rst", "kernels/README.md", "bench/results/*.md"]
include_patterns += ["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [".*", "build", "target", "rust", "python", "tests", "demo", "runs"]
nitpicky = True
# Only names of distill have to be found: there is no request to the sites of other projects.
nitpick_ignore_regex = [("py:.*", r"(?!distill\.).*")]

myst_heading_anchors = 3
# Single backquotes in docstrings are code.
default_role = "code"
autodoc_default_options = {"members": True}
autodoc_typehints = "none"  # docstrings give types with shapes and units
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"distill {release}"
html_additional_pages = {"index": "to_start.html"}
templates_path = ["templates"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}
