"""Check of rendered pages: what a reader, with or without network and eyesight, must be able to rely on."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from miue.errors import InputError

LEAST_WORDS = 4
"""A text that says what is seen in a figure has at least so many words."""

NETWORK = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
CSS_URL = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)
FILE_NAME = re.compile(r"^\S+\.(png|svg|jpe?g|gif|webp)$", re.IGNORECASE)
LOADING_LINKS = {"stylesheet", "preload", "modulepreload", "icon", "shortcut", "apple-touch-icon", "manifest"}


def check(html: str | Path) -> list[str]:
    """Return what is wrong with the pages under `html`, one line each with the page's name; [] if nothing.

    Looked for: outputs of errors, images that are missing, images without an alternative text that says
    what is seen, links to pages or places that do not exist, and scripts, styles, fonts, images or frames
    that would be loaded from the network.

    Raises:
        InputError: there is no `index.html`, or beautifulsoup4 is not installed.
    """
    html = Path(html).resolve()
    if not (html / "index.html").is_file():
        raise InputError(f"html: {html} holds no index.html; build the book first")
    try:
        from bs4 import BeautifulSoup
    except ImportError:
        raise InputError("beautifulsoup4: not installed; the check needs the packages of miue[book]") from None
    pages = {
        path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in sorted(html.rglob("*.html"))
        if path.relative_to(html).parts[0] not in ("_static", "_sources")
    }
    anchors = {path: _anchors(page) for path, page in pages.items()}
    found = []
    for path, page in pages.items():
        name = path.relative_to(html).as_posix()
        for problem in (*_errors(page), *_images(page, path), *_links(page, path, html, anchors), *_network(page)):
            found.append(f"{name}: {problem}")
    for sheet in sorted(html.rglob("*.css")):
        for url in CSS_URL.findall(sheet.read_text(encoding="utf-8", errors="replace")):
            found.append(f"{sheet.relative_to(html).as_posix()}: loads {url} from the network")
    return found


def _errors(page: Any) -> Iterator[str]:
    """Error outputs as myst-nb renders them, and the marks that papermill leaves."""
    for output in page.select(".output.traceback, .output.stderr, #papermill-error-cell"):
        last = (output.get_text().strip().splitlines() or [""])[-1]
        yield f"shows an error: {last[:100]}"
    for message in page.select(".system-message, .problematic"):
        yield f"shows a message of the builder: {message.get_text().strip()[:100]}"


def _images(page: Any, path: Path) -> Iterator[str]:
    for image in page.select("img, object[type^=image]"):
        source = image.get("src") or image.get("data") or ""
        embedded = source.startswith("data:")
        name = "an embedded image" if embedded else f"image {source}"
        if not source or not (embedded or NETWORK.match(source) or _target(path, source).is_file()):
            yield f"{name} is missing"
        text = (image.get("alt") or image.get_text()).strip()
        if FILE_NAME.search(text) or len(text.split()) < LEAST_WORDS:
            yield f"{name} has no alternative text that says what is seen: {text!r}"


def _links(page: Any, path: Path, html: Path, anchors: dict[Path, set[str]]) -> Iterator[str]:
    for link in page.find_all("a", href=True):
        url = urlsplit(link["href"])
        if url.scheme or url.netloc or (not url.path and not url.fragment):
            continue
        target = _target(path, url.path) if url.path else path
        if target.is_dir():
            target /= "index.html"
        if not target.is_file() or not target.is_relative_to(html):
            yield f"link to {link['href']}, which does not exist"
        elif url.fragment and target in anchors and unquote(url.fragment) not in anchors[target]:
            yield f"link to {link['href']}, but there is no such place on that page"


def _network(page: Any) -> Iterator[str]:
    for tag in page.find_all(["script", "img", "iframe", "embed", "source", "video", "audio", "object", "link"]):
        if tag.name == "link" and not LOADING_LINKS & {rel.lower() for rel in tag.get("rel") or []}:
            continue  # rel="next", "search" and the like load nothing
        for key in ("src", "href", "data", "poster"):
            if NETWORK.match(tag.get(key) or ""):
                yield f"<{tag.name}> loads {tag[key]} from the network"
        for part in (tag.get("srcset") or "").split(","):
            if NETWORK.match(part):
                yield f"<{tag.name}> loads {part.split()[0]} from the network"
    styles = [tag.get_text() for tag in page.find_all("style")]
    for text in styles + [tag["style"] for tag in page.find_all(style=True)]:
        for url in CSS_URL.findall(text):
            yield f"a style loads {url} from the network"
    for script in page.find_all("script", src=False):
        for url in re.findall(r"""(?:\.src\s*=|import\s*\(?|from)\s*["'](https?://[^"']+)""", script.get_text()):
            yield f"a script loads {url} from the network"


def _anchors(page: Any) -> set[str]:
    return {tag["id"] for tag in page.find_all(id=True)} | {
        tag["name"] for tag in page.find_all("a", attrs={"name": True})
    }


def _target(path: Path, url: str) -> Path:
    """The file that a relative URL on the page at `path` stands for."""
    return (path.parent / unquote(urlsplit(url).path)).resolve()


def main() -> None:
    """Check the folder that the command line names, print what is wrong, exit with 1 if anything is."""
    problems = check(sys.argv[1])
    print("\n".join(problems) or "every page is fit to be read")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
