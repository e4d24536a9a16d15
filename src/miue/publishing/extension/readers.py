"""What theme and libraries leave out for readers who hear a page, and for those who open it without a server."""

import re
from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

BLANK_HEAD = re.compile(r"<th((?: [^>]*)?)>(?:\s|&nbsp;|&#160;)*</th>")
PLACES_IN_LIST = re.compile(r"(<dl[^>]*>)\s*((?:<span id=\"[^\"]*\"></span>)+)")
ALONE = 'if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;'
"""The search quotes the pages that it finds; without a server a page may not read others."""


def name_arrows(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Say of each arrow in the list of pages what it opens."""
    listed: Callable[..., Any] = context["generate_toctree_html"]

    def named(*given: Any, **options: Any) -> Any:
        contents = listed(*given, **options)
        for arrow in contents.select("summary") if contents else ():
            arrow["aria-label"] = f"Pages of {arrow.find_parent('li').a.get_text(strip=True)}"
        return contents

    context["generate_toctree_html"] = named


def mend(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Make the bibliography a list of works, cells that head nothing plain cells, and keep places out of lists."""
    if "body" not in context:
        return
    body = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
    body = BLANK_HEAD.sub(r"<td\1></td>", body)
    context["body"] = PLACES_IN_LIST.sub(r"\2\1", body)


def search_alone(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Let the search work without a server."""
    if page == "search":
        app.add_js_file(None, body=ALONE)


def connect(app: Sphinx) -> None:
    """Connect all of it to Sphinx, after the theme has its list of pages, at 500."""
    app.connect("html-page-context", name_arrows, priority=600)
    app.connect("html-page-context", mend)
    app.connect("html-page-context", search_alone)
