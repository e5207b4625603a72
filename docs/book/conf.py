"""How Sphinx makes HTML of the pages in docs/: packaging/make-docs runs it.

The pages are Markdown as a code forge shows it, so what only the book needs is added here.
"""  # noqa: INP001 - Sphinx reads it, nothing imports it

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]

VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "netsrvd/__init__.py").read_text())

project = "netsrvd"
author = "netsrvd developers"
release = version = VERSION[1] if VERSION else ""

extensions = ["myst_parser"]
exclude_patterns = ["book"]
myst_heading_anchors = 4
highlight_language = "none"

html_theme = "basic"
templates_path = ["."]
html_static_path = ["book.css"]
html_title = project
html_copy_source = False
html_use_index = False
html_domain_indices = False
smartquotes = False

CONTENTS = re.compile(r"^\d+\. \[([^\]]+)\]\((\w[\w-]*)\.md\)", re.MULTILINE)
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")
INSTALLED = {"packaging/examples/": "../examples/", "SECURITY.md": "../SECURITY.md"}
"""Where files outside of docs/ are, as seen from the installed HTML."""


def link_outside(found: re.Match[str]) -> str:
    """Return the link to a file outside of docs/ as HTML, or its text if it is not installed."""
    text, path = found[1], found[2]
    for start, place in INSTALLED.items():
        if path.startswith(start):
            return f'<a href="{place}{path.removeprefix(start)}">{text}</a>'
    return f"{text} of the source" if text == path else f"{text} ({path} of the source)"


def prepare(_app: Sphinx, name: str, source: list[str]) -> None:
    """Give the page of contents a toctree of its links; change links to files outside of docs/."""
    if name == "index":
        pages = "\n".join(f"{title} <{page}>" for title, page in CONTENTS.findall(source[0]))
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"
    source[0] = OUTSIDE.sub(link_outside, source[0])


def setup(app: Sphinx) -> None:
    """Add what this file defines to Sphinx."""
    app.connect("source-read", prepare)
