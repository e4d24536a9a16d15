"""The built book in a browser, on a phone and a desktop, in light and dark: what only a browser can tell."""

import re
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest

from miue.errors import InputError
from miue.publishing import printing
from miue.runs.run_folder import read_object

BOOK = Path(__file__).parents[2]
HTML = BOOK / "_build" / "html"
SCREENS = {"phone": (390, 844), "desktop": (1280, 800)}

MOST = 1_500_000
"""Bytes of a page with the images that it loads at once, without the styles, scripts and fonts that pages share."""


def lacking():
    """What is missing for these tests, "" if nothing is."""
    try:
        printing.browser()
    except InputError:
        return "needs Chromium and the package playwright"
    return "" if find_spec("axe_playwright_python") else "needs axe-playwright-python"


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(lacking()), reason=lacking())]
built = pytest.mark.skipif(not (HTML / "index.html").exists(), reason="needs the book: make book first")


def pages():
    """The pages of the book, as addresses below its folder, but the one that only leads to the first."""
    found = sorted(page.relative_to(HTML).as_posix() for page in HTML.rglob("*.html"))
    return [name for name in found if name != "index.html" and not name.startswith(("_static/", "_sources/"))]


def of_each_kind():
    """The chapters, and of the results of each template one: they have the same cells."""
    kinds = {}
    for name in pages():
        record = BOOK / Path(name).with_suffix(".json")
        kinds.setdefault(read_object(record).get("template", name), name)
    return kinds.values()


def holding(mark):
    """The first page with such a text in its source."""
    return next(name for name in pages() if mark in (HTML / name).read_text(encoding="utf-8"))


class Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *message):
        pass


@contextmanager
def served(folder):
    """The address of a server of the files in a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=printing.browser(), args=printing.FLAGS)


@pytest.fixture(scope="module")
def book():
    with served(HTML) as address:
        yield address


class Reader:
    """Who opens pages, and notes what is wrong with them."""

    def __init__(self, chromium, address, screen="desktop"):
        from axe_playwright_python.sync_playwright import Axe

        width, height = SCREENS[screen]
        self.page = chromium.new_context(viewport={"width": width, "height": height}).new_page()
        self.address, self.axe = address, Axe()
        self.name, self.found = "", []
        self.page.on("console", lambda told: told.type == "error" and self.note(told.text))
        self.page.on("pageerror", lambda error: self.note(f"error: {error}"))
        self.page.on("request", lambda asked: self.near(asked.url) or self.note(f"asks for {asked.url}"))

    def near(self, url):
        return url.startswith((self.address, "data:", "blob:"))

    def note(self, problem):
        self.found.append(f"{self.name}: {problem}")

    def open(self, name, scheme="light"):
        self.name = name
        self.page.emulate_media(color_scheme=scheme)
        self.page.goto(self.address + name)
        self.page.evaluate("() => window.MathJax?.startup.promise")

    def turn(self, scheme):
        """Let the system be light or dark, wait until the page is, and look whether it is as wide as the screen."""
        self.page.emulate_media(color_scheme=scheme)
        self.page.wait_for_function(
            "scheme => (document.documentElement.dataset.theme ?? scheme) == scheme", arg=scheme
        )
        self.page.evaluate("document.getAnimations().forEach((one) => one.finish())")  # a colour on its way is neither
        if (over := self.page.evaluate("document.documentElement.scrollWidth - innerWidth")) > 0:
            self.note(f"in {scheme}, {over} pixels wider than the screen")

    def formulas(self):
        for source in self.page.locator(".math:not(:has(mjx-container)), mjx-merror").all_text_contents():
            self.note(f"a formula is not set: {source[:80]}")

    def listen(self, *rules, part=None):
        """Ask axe for what is serious or critical, by all rules or by some; it sees the first of what is alike."""
        self.page.evaluate(PRUNE)
        options = {"preload": False, "resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
        for finding in self.axe.run(self.page, part, options).response["violations"]:
            if finding["impact"] in ("serious", "critical"):
                for node in finding["nodes"]:
                    self.note(f"{finding['id']}: {node['html'][:100]}: {' '.join(node['failureSummary'].split())}")


def wait_for(true):
    """Wait until something is true, for ten seconds at most."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


PRUNE = """() => {
  const rest = (alike, kept) => [...document.querySelectorAll(alike)].slice(kept).forEach((node) => node.remove());
  rest("mjx-container", 5);
  rest("div.highlight pre", 3);
  rest("tbody tr:nth-child(n + 6)", 0);
}"""
"""Formulas, code and rows of tables: axe takes minutes for all, and finds in each what it finds in the first."""

DEFECTS = {
    "<script>console.error('lost')</script>": "lost",
    "<script>nothing.at_all</script>": "nothing is not defined",
    "<img src='none.png' alt='None'>": "404",
    "<script src='http://127.0.0.1:9/far.js'></script>": "asks for http://127.0.0.1:9/far.js",
    "<p style='width: 2000px'>wide</p>": "pixels wider than the screen",
    "<p class='math'>\\(x\\)</p>": "a formula is not set",
    "<p style='color: #999'>pale</p>": "color-contrast",
    "<button></button>": "button-name",
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(chromium, tmp_path, defect):
    page = "<html lang='en'><head><title>One</title><link rel='icon' href='data:,'></head><body><main><h1>One</h1>"
    (tmp_path / "good.html").write_text(page)
    (tmp_path / "bad.html").write_text(page + defect)
    with served(tmp_path) as address:
        reader = Reader(chromium, address)
        for name in ("good.html", "bad.html"):
            reader.open(name)
            reader.turn("dark")
            reader.formulas()
            reader.listen()
    assert [one for one in reader.found if DEFECTS[defect] in one]
    assert [one for one in reader.found if "good.html" in one] == []


@built
@pytest.mark.parametrize("screen", SCREENS)
def test_every_page_is_whole_on_every_screen(chromium, book, screen):
    reader = Reader(chromium, book, screen)
    for name in pages():
        reader.open(name)
        reader.turn("dark")
        reader.turn("light")
        reader.formulas()
    assert not reader.found, "\n".join(reader.found)


@built
def test_axe_finds_nothing_serious(chromium, book):
    """By all rules in light; in the dark by those of colours. What frames a page is looked at once."""
    reader = Reader(chromium, book)
    for name in of_each_kind():
        part = None if name in ("book/index.html", "search.html") else "article"
        reader.open(name)
        reader.listen(part=part)
        reader.turn("dark")
        reader.listen("color-contrast", part=part)
    assert not reader.found, "\n".join(reader.found)


@built
def test_the_search_finds_a_word_and_quotes_it(chromium, book):
    reader = Reader(chromium, book)
    reader.open("search.html?q=covariance")
    chapter = reader.page.locator("#search-results li:has(a[href*='book/covariance.html']):has(p.context)")
    chapter.first.wait_for()
    assert not reader.found, "\n".join(reader.found)


@built
def test_the_leaderboard_is_sorted_and_filtered(chromium, book):
    reader = Reader(chromium, book)
    reader.open("book/results/leaderboard.html")
    head = reader.page.locator("th:has(.dt-column-title:text-is('Accuracy %'))")
    place = head.evaluate("cell => cell.cellIndex + 1")
    cells = reader.page.locator(f"table.miue-leaderboard tbody tr td:nth-child({place})")
    everything = cells.all_text_contents()
    head.locator("button.dtcc-button_order").click()
    wait_for(lambda: cells.all_text_contents() == sorted(everything, key=float) != everything)
    reader.page.locator(".dt-search input").fill("MI-UE")
    wait_for(lambda: 0 < cells.count() < len(everything))
    assert not reader.found, "\n".join(reader.found)


@built
def test_every_slider_and_list_changes_the_drawing(chromium, book):
    reader = Reader(chromium, book)
    for name in (name for name in pages() if 'class="miue-interactive"' in (HTML / name).read_text(encoding="utf-8")):
        reader.open(name)
        for figure in reader.page.locator(".miue-interactive").all():
            svg = figure.locator(".vega-embed svg")
            svg.wait_for()
            for control in figure.locator("input[type=range], select").all():
                drawn = svg.inner_html()
                if (most := control.get_attribute("max")) is None:
                    control.select_option(index=1)
                else:
                    control.fill(control.get_attribute("min") if control.input_value() == most else most)
                wait_for(lambda svg=svg, drawn=drawn: svg.inner_html() != drawn)
    assert reader.name and not reader.found, "\n".join(reader.found)


@built
def test_a_solution_opens(chromium, book):
    reader = Reader(chromium, book)
    reader.open(holding("solution dropdown"))
    solution = reader.page.locator(".solution.dropdown").first
    text = solution.locator("section p").first
    assert not text.is_visible()
    solution.locator("button.toggle-button").click()
    wait_for(text.is_visible)


@built
def test_pages_are_light():
    heavy = {}
    for name in pages():
        images = set(re.findall(r'<img ([^>]*)src="([^":]+)"', (HTML / name).read_text(encoding="utf-8")))
        sizes = {image: ((HTML / name).parent / unquote(image[1])).stat().st_size for image in images}
        at_once = sum(size for (before, _), size in sizes.items() if 'loading="lazy"' not in before)
        if (size := (HTML / name).stat().st_size + at_once) > MOST:
            heavy[name] = size
    assert not heavy, heavy


@built
@pytest.mark.parametrize("name", ["book/index.html", "search.html?q=covariance", "figures that move"])
def test_the_book_can_be_read_without_a_server(chromium, name):
    name = holding('class="miue-interactive"') if name == "figures that move" else name
    reader = Reader(chromium, f"{HTML.as_uri()}/")
    reader.open(name)
    reader.formulas()
    if "search" in name:
        reader.page.locator("#search-results li").first.wait_for()
    if "miue-interactive" in reader.page.content():
        reader.page.locator(".miue-interactive .vega-embed svg").first.wait_for()
    assert not reader.found, "\n".join(reader.found)
