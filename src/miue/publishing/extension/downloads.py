"""Each chapter as an executed notebook to take away, and buttons that open it elsewhere.

The download menu of a chapter offers its `.ipynb` beside its `.md`. Where the address of the repository is known
(`MIUE_REPOSITORY` in the environment, https://github.com/OWNER/NAME), the notebook begins with a cell that fetches book
and package, and buttons open it in Colab, from the branch that the pages are published on, and its source in Binder.
"""

import os
import re
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from nbformat import v4
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

PAGES = "gh-pages"
"""The branch that holds the published pages, and so the notebooks beside them."""
GITHUB = re.compile(r"https://github\.com/(?P<name>[\w.-]+/[\w.-]+?)/?")
FETCH = """\
# Fetches the book and installs its package; skip it where you have both.
!git clone --quiet --depth 1 {address} the-book
%pip install --quiet ./the-book
%cd the-book/{folder}"""


def repository(app: Sphinx) -> str:
    """The repository as OWNER/NAME; "" where its address is not known."""
    address = app.config.miue_repository
    if not address:
        return ""
    if not (found := GITHUB.fullmatch(address)):
        raise ExtensionError(f"MIUE_REPOSITORY: {address!r}; it must be https://github.com/OWNER/NAME")
    return found["name"]


def offer(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Put the executed notebook of a chapter where the theme's download menu looks for it."""
    executed = Path(app.outdir).parent / "jupyter_execute" / f"{page}.ipynb"
    if doctree is None or not context.get("sourcename", "").endswith(".md") or not executed.exists():
        return
    made = nbformat.read(executed, as_version=4)
    if name := repository(app):
        fetch = FETCH.format(address=f"https://github.com/{name}", folder=Path(page).parent.as_posix())
        made.cells.insert(0, v4.new_code_cell(fetch))
    place = Path(app.outdir) / "_sources" / f"{page}.ipynb"
    place.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, place)
    context["ipynb_source"] = f"{page}.ipynb"


def launch(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Add the buttons of chapters that have a notebook, where the repository is known."""
    name = repository(app)
    if not name or "ipynb_source" not in context:
        return
    colab = f"https://colab.research.google.com/github/{name}/blob/{PAGES}/_sources/{context['ipynb_source']}"
    binder = f"https://mybinder.org/v2/gh/{name}/HEAD?urlpath=lab/tree/{page}.md"
    buttons = [
        {"type": "link", "text": text, "tooltip": f"Open in {text}", "icon": icon, "url": url, "label": f"open-{text}"}
        for text, icon, url in (
            ("Colab", "fas fa-cloud", colab),
            ("Binder", "fas fa-flask", binder),
        )
    ]
    group = {"type": "group", "tooltip": "Open this chapter elsewhere", "icon": "fas fa-rocket", "label": "launch"}
    context["header_buttons"].insert(0, group | {"buttons": buttons})


def connect(app: Sphinx) -> None:
    """Connect it to Sphinx, around the theme's own buttons, which are made at 501."""
    app.add_config_value("miue_repository", os.environ.get("MIUE_REPOSITORY", ""), "html", str)
    app.connect("html-page-context", offer)
    app.connect("html-page-context", launch, priority=502)
