"""What the book adds to Sphinx: pages of results, tables made of records, links to the reference."""

from typing import Any

from sphinx.application import Sphinx

from miue.publishing.extension import downloads, findings, interactive, pages, readers, records, reference


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect all of it to Sphinx, which calls this for the extension `miue.publishing.extension`."""
    pages.connect(app)
    records.connect(app)
    findings.connect(app)
    reference.connect(app)
    downloads.connect(app)
    interactive.connect(app)
    readers.connect(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
