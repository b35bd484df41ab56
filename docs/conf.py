"""The documentation site: Sphinx, MyST and furo over the pages where they lie.

The source folder is the repository's root (`make docs`), so that the links between docs/, the tasks' READMEs, CONTRIBUTING.md and
CHANGELOG.md are the same on the site and in a clone. The reference is written to docs/reference/ at the beginning of a build.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from site_pages import write_reference  # noqa: E402

import headwater  # noqa: E402

project = "Headwater"
author = "The Headwater authors"
version = release = headwater.__version__
project_copyright = f"{author}; Apache-2.0"

root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/guides/*.md",
    "docs/reference/*.md",
    "downstream/*/README.md",
    "benchmarks/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
]
exclude_patterns = ["build", "result", ".*", "**/.*", "tests", "venv*"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
suppress_warnings = ["myst.header"]  # a page may begin below its first level
source_suffix = {".md": "markdown"}

myst_heading_anchors = 3  # links to headings, as GitHub makes them
myst_enable_extensions = ["colon_fence", "deflist"]
highlight_language = "none"  # a block without a word is a command, an output or a tree
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
smartquotes = False  # -- and "" are meant

html_theme = "furo"
html_title = "Headwater"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["leaderboard.js"]
html_extra_path = ["_root"]  # the site's own root sends a visitor to docs/index.html
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


def setup(app: Any) -> None:
    """Write the reference before Sphinx looks for pages, and read docstrings as the Markdown that they are."""
    app.connect("builder-inited", lambda _: write_reference(DOCS / "reference"))
    app.connect("autodoc-process-docstring", code_in_backticks)


def code_in_backticks(*event: Any) -> None:
    """Make code of what stands between single backticks in a docstring."""
    lines: list[str] = event[-1]
    lines[:] = [re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line) for line in lines]
