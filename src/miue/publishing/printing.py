"""The whole book as one PDF: its rendered pages one after the other, printed by Chromium.

Links between pages lead to their places in it. Code that pages fold away, and what only a browser can use, is left out;
solutions are open. How it looks in print stands under `@media print` in `book/_static/miue.css`.
"""

import html as markup
import posixpath
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from miue.errors import InputError
from miue.storage import files

HOME = "book/index.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""Of a browser that works as root, without a screen, and asks nobody for anything."""

LEFT_OUT = "a.headerlink, details.hide, script, h2:has(+ .toctree-wrapper), .toctree-wrapper, .miue-copies"
"""What of a page makes no sense on paper."""

TITLE = ("logo__title", "component-author")
"""Classes of title and author on a page."""
WIDTH, HEIGHT = 665, 971
"""The text on a page, in pixels of 1/96 inch; the margins stand in `miue.css`."""
FIT = """() => {
  for (const wide of document.querySelectorAll("table, mjx-container[display]")) {
    const room = wide.parentElement.clientWidth / wide.scrollWidth;
    if (room < 1) wide.style.zoom = 0.99 * room;
  }
}"""
"""Makes tables and formulas smaller that are wider than the page."""

TWICE = re.compile(rb"/Title \((\d[\d.]*\. )?(?(1)\1)([^()]+)\2\)")
"""A bookmark whose number, if it has one, and words stand there twice."""


class Line(NamedTuple):
    """A line of the table of contents: `level` 0 is the caption of a part, and has no page."""

    level: int
    text: str
    page: str


def browser() -> str:
    """Return the path of Chromium.

    Raises:
        InputError: there is none, or what drives it is not installed.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise InputError("pdf: Chromium prints it, and there is none; install chromium or google-chrome")
    if find_spec("playwright") is None:
        raise InputError("pdf: playwright is not installed; printing needs the packages of miue[book]")
    return found


def write(html: Path, out: Path) -> None:
    """Print the pages under `html` into the file `out`.

    Args:
        html: the rendered book.
        out: the PDF, replaced when it is whole.

    Raises:
        InputError: see `browser`.
        RuntimeError: a formula could not be set, or the browser failed.
    """
    program = browser()
    from playwright.sync_api import Error, sync_playwright

    with (
        NamedTemporaryFile("w", encoding="utf-8", prefix=".print.", suffix=".html", dir=html.parent) as source,
        files.atomic(out) as part,
        sync_playwright() as driver,
    ):
        source.write(document(html))
        source.flush()
        try:
            chromium = driver.chromium.launch(executable_path=program, args=FLAGS)
            page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.emulate_media(media="print")
            page.goto(Path(source.name).as_uri(), timeout=0)
            page.evaluate("() => window.MathJax?.startup.promise")
            if wrong := page.locator("mjx-merror").all_text_contents():
                raise RuntimeError(f"pdf: formulas that cannot be set: {'; '.join(wrong[:3])}")
            page.evaluate(FIT)
            printed = page.pdf(prefer_css_page_size=True, print_background=True, outline=True, tagged=True)
            part.write_bytes(named_once(printed))
        except Error as error:
            raise RuntimeError(f"pdf: Chromium could not print it: {error.message.splitlines()[0]}") from None


def named_once(pdf: bytes) -> bytes:
    """Mend bookmarks: Chromium says the parts of a heading twice where it moved it to the next page.

    The places of all that follows stay as they are, which a PDF counts in bytes.
    """
    return TWICE.sub(lambda title: (b"/Title (%b%b)" % (title[1] or b"", title[2])).ljust(len(title[0])), pdf)


def document(html: Path) -> str:
    """Return one HTML page of all pages in the order of the table of contents, to lie beside the folder `html`."""
    home = _read(html / HOME)
    lines = list(contents(home))
    pages = [line.page for line in lines if line.page]
    heads: dict[str, None] = {}
    bodies = []
    for name in pages:
        page = home if name == HOME else _read(html / name)
        heads |= dict.fromkeys(_head(page, name, html.name))
        bodies.append(f'<div class="miue-printed" id="{_place(name)}">{_body(page, name, set(pages), html.name)}</div>')
    title, author = (markup.escape(home.select_one(f".{name}").get_text(strip=True)) for name in TITLE)
    listed = "\n".join(
        f'<p class="level-{line.level}">'
        + (f'<a href="#{_place(line.page)}">{markup.escape(line.text)}</a>' if line.page else markup.escape(line.text))
        + "</p>"
        for line in lines
    )
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{title}</title>
{"".join(heads)}
</head><body class="miue-print"><main class="bd-main"><div class="bd-content"><article class="bd-article">
<div class="miue-title"><p class="title">{title}</p><p>{author}</p>
<p>Printed from the pages of the book, which hold more: figures to move, tables to sort, and the code that is folded
away here.</p></div>
<nav class="miue-contents" aria-label="Contents"><h1>Contents</h1>
{listed}</nav>
{"".join(bodies)}
</article></div></main></body></html>
"""


def contents(home: Any) -> Iterator[Line]:
    """Yield the lines of the table of contents as the first page lists them."""
    for line in home.select("nav.bd-docs-nav .caption, nav.bd-docs-nav li > a"):
        text = line.get_text(" ", strip=True)
        if line.name == "a":
            level = next(int(name[-1]) for name in line.parent["class"] if name.startswith("toctree-l"))
            yield Line(level, text, _target(HOME, line["href"]))
        else:
            yield Line(0, text, "")


def _read(page: Path) -> Any:
    from bs4 import BeautifulSoup

    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def _head(page: Any, name: str, folder: str) -> Iterator[str]:
    """Yield the style sheets of a page, and the scripts that set its formulas."""
    for tag in page.head.select("link[rel=stylesheet], script"):
        if tag.name == "link":
            tag["href"] = f"{folder}/{_target(name, tag['href'])}"
        elif "mathjax" not in str(tag).lower():
            continue
        elif "src" in tag.attrs:
            tag["src"] = f"{folder}/{_target(name, tag['src'])}"
        yield str(tag)


def _body(page: Any, name: str, pages: set[str], folder: str) -> str:
    """Return the text of a page, with the names of its places and its links as they are in the whole."""
    article = page.select_one("article")
    for tag in article.select(LEFT_OUT):
        tag.decompose()
    drawn = set(map(id, article.select("svg [id]")))
    for tag in article.find_all(id=True):
        if id(tag) not in drawn:
            tag["id"] = f"{_place(name)}--{tag['id']}"
    for tag in article.find_all(src=True):
        tag.attrs.pop("loading", None)  # paper shows all at once
        if not urlsplit(tag["src"]).scheme:
            tag["src"] = f"{folder}/{_target(name, tag['src'])}"
    for link in article.find_all("a", href=True):
        url = urlsplit(link["href"])
        if url.scheme or url.netloc:
            continue
        target = _target(name, url.path)
        if target in pages:
            link["href"] = f"#{_place(target)}" + (f"--{url.fragment}" if url.fragment else "")
        else:
            del link["href"]  # the index, and files to take away
    return str(article.decode_contents())


def _target(page: str, url: str) -> str:
    """The page or file that a relative URL on a page leads to, from the folder of the book."""
    path = urlsplit(url).path
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page


def _place(page: str) -> str:
    """The name of a page in the whole."""
    return page.removesuffix(".html").replace("/", "-")
