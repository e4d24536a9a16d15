"""What a page found, as a card, and numbers in sentences that come from the records of pages.

- `{miue-finding} PAGE`: a card: the page's title, what it was measured on, a figure of it, and the sentences in the
  directive. `:title:` is the title that the page gets, in place of its template's; `:figure:` names the figure's label
  in the template; without it the page's first one is shown. With `:alone:` it is the sentences and the figure alone:
  so they lead their page as well, under its title.
- `{measured}`: a number of a page's trials, written as `quoting.quote` says. It is of the page of its card; elsewhere
  PAGE: stands before it.
- `{reported}`: an accuracy that the paper reports; see `quoting.reported`.
"""

import os
import re
from base64 import b64decode
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from miue.errors import InputError
from miue.publishing import leaderboard, quoting, summary
from miue.publishing.extension.records import RESULTS, link, read
from miue.runs import notebook
from miue.runs.figures import PNG, SVG

CARD = "miue_card"
"""Where Sphinx's environment keeps, while a card is read, the page that it is about."""
WRITTEN = re.compile(
    r"^:{3,}\{miue-finding\} (?P<page>\S+)\n(?P<options>(?::\w+:[^\n]*\n)*)\n?(?P<text>.*?)^:{3,}$",
    re.MULTILINE | re.DOTALL,
)
"""A card in the source of a page: what it is about, its options, and its sentences."""


class Card(SphinxDirective):
    """`{miue-finding} PAGE`: what a page found, in sentences, with its figure small."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {
        "title": directives.unchanged_required,
        "figure": directives.unchanged,
        "alone": directives.flag,
    }

    def run(self) -> list[nodes.Node]:
        """Return the card; a page that the book does not hold is an error of the build."""
        name = self.arguments[0]
        record = read(self.env, RESULTS + name)
        if not record:
            raise self.error(f"miue-finding: no page is called {name!r}")
        text = nodes.container(classes=["miue-finding-text"])
        self.env.temp_data[CARD] = name
        self.state.nested_parse(self.content, self.content_offset, text)
        del self.env.temp_data[CARD]
        figure = first_figure(Path(self.env.doc2path(RESULTS + name)), self.options.get("figure"))
        if figure is None:
            raise self.error(f"miue-finding: {name} has no such figure: {self.options.get('figure', 'any')}")
        image = self._image(name, *figure)
        if "alone" in self.options:
            return [text, image]
        heading = nodes.paragraph("", "", link(RESULTS + name), classes=["miue-finding-title"])
        facts = nodes.paragraph("", summary.brief(record), classes=["miue-finding-facts"])
        return [nodes.container("", heading, image, text, facts, classes=["miue-finding"])]

    def _image(self, name: str, ending: str, content: bytes, alt: str) -> nodes.Node:
        """Write a figure where those of notebooks go, and return what shows it."""
        place = Path(self.env.app.outdir).parent / "jupyter_execute" / "cards" / f"{name}.{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        uri = "/" + Path(os.path.relpath(place, self.env.srcdir)).as_posix()
        image = nodes.image(uri=uri, alt=alt, loading="lazy")  # a page may hold dozens of cards
        return nodes.container("", image, classes=["miue-finding-figure"])


class Measured(SphinxRole):
    """`{measured}`: a number of a page's trials."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the number, which tells where it comes from when one points at it."""
        try:
            text, source = self.quoted()
        except InputError as error:
            told = self.inliner.reporter.error(str(error), line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, told)], [told]
        return [nodes.abbreviation("", text, explanation=source, classes=["miue-measured"])], []

    def quoted(self) -> tuple[str, str]:
        """The number, and where it comes from."""
        page, colon, words = self.text.partition(": ")
        if not colon:
            page, words = self.env.temp_data.get(CARD, ""), self.text
        if not (record := read(self.env, RESULTS + page)):
            raise InputError(f"measured: no page is called {page!r}; write PAGE: METHOD, or stand in its card")
        found = quoting.quote(leaderboard.trials({page: record}), words)
        return found.text, f"{page}: {found.source}"


class Reported(Measured):
    """`{reported}`: an accuracy that the paper reports."""

    def quoted(self) -> tuple[str, str]:
        """The number, and where it comes from."""
        found = quoting.reported(self.text)
        return found.text, found.source


def written(app: Sphinx, page: str) -> re.Match[str] | None:
    """Return the card of a page as the page of results has it, None where it has none; see `WRITTEN`."""
    index = Path(app.srcdir) / RESULTS / "index.md"
    app.env.note_dependency(str(index))  # the page is read again when they change
    cards = WRITTEN.finditer(index.read_text(encoding="utf-8") if index.exists() else "")
    return next((card for card in cards if card["page"] == page), None)


def first_figure(page: Path, name: str | None = None) -> tuple[str, bytes, str] | None:
    """Return a figure of an executed notebook: "svg" or "png", content and alternative text.

    It is the first, or the one of that name; None where there is none.
    """
    for cell in notebook.load(page).cells:
        about = cell.metadata.get("mystnb", {})
        if cell.cell_type != "code" or name not in (None, about.get("figure", {}).get("name")):
            continue
        for shown in (output.get("data", {}) for output in cell.outputs):
            alt = about.get("image", {}).get("alt", "")
            if SVG in shown:
                return "svg", shown[SVG].encode(), alt
            if PNG in shown:
                return "png", b64decode(shown[PNG]), alt
    return None


def connect(app: Sphinx) -> None:
    """Connect all of it to Sphinx."""
    app.add_directive("miue-finding", Card)
    app.add_role("measured", Measured())
    app.add_role("reported", Reported())
