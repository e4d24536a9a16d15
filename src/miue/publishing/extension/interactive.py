"""Interactive figures: a page that holds one loads Vega, from the book's own files, and no other page does."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

VEGA = "vega-6"
"""Folder of Vega, Vega-Lite and Vega-Embed in `_static`, as published."""


def load(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Load the library where a cell of the page showed a `miue.experiments.interactive.Interactive`."""
    if doctree is None or not any("miue-interactive" in raw.astext() for raw in doctree.findall(nodes.raw)):
        return
    for name in ("vega", "vega-lite", "vega-embed"):
        app.add_js_file(f"{VEGA}/{name}.min.js", loading_method="defer")
    app.add_js_file("interactive.js", loading_method="defer")


def connect(app: Sphinx) -> None:
    """Connect it to Sphinx."""
    app.connect("html-page-context", load)
