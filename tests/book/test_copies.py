"""The copies of the book: what is in them, where their links lead, and that the first page offers those that are."""

import re
import shutil
import zipfile
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from miue.errors import InputError
from miue.publishing import copies, printing

PAGE = """<html><head><link rel="stylesheet" href="../_static/miue.css"/><script src="../_static/search.js"></script>
<script src="../_static/mathjax/tex.js"></script></head><body><p class="logo__title">A &lt;book&gt;</p>
<nav class="bd-docs-nav"><ul><li class="toctree-l1"><a href="{home}">A book</a></li></ul><p class="caption">Part</p>
<ul><li class="toctree-l1"><a href="{one}">1. One</a><ul>
<li class="toctree-l2"><a href="{two}">Two</a></li></ul></li></ul></nav>
<h1>On the margin</h1><article class="bd-article"><h1>{title}<a class="headerlink" href="#top">#</a></h1>{text}
</article><p class="component-author">By somebody</p></body></html>"""
TEXTS = {
    "index": '<p><a href="one.html#why">why</a> <a href="../genindex.html">index</a></p><h2>Contents</h2>',
    "one": '<p id="why"><img loading="lazy" src="../_images/a%20b.svg"/>'
    '<a href="#why">here</a> <a href="index.html">up</a></p>'
    '<svg><g id="clip"></g></svg><details class="hide"><p>secret</p></details>',
    "two": '<table><tr><td><p style="width: 3000px">wide</p></td></tr></table><a href="https://example.org/">far</a>',
}


@pytest.fixture
def html(tmp_path):
    folder = tmp_path / "html"
    for name in ("_static/miue.css", "_images/a b.svg", "index.html", "genindex.html"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    shutil.copy(Path(__file__).parents[2] / "book/_static/miue.css", folder / "_static")
    (folder / "book").mkdir()
    for name, text in TEXTS.items():
        links = {other: "#" if other == name else f"{other}.html" for other in ("one", "two")}
        home = "#" if name == "index" else "index.html"
        (folder / "book" / f"{name}.html").write_text(PAGE.format(home=home, title=name, text=text, **links))
    return folder


def test_a_zip_holds_every_file_of_the_book_and_no_copy_of_it(html):
    for _ in range(2):
        (made,) = copies.make(html, pdf=False, archive=True)
        assert made == html.parent / "miue-book.zip"
        with zipfile.ZipFile(made) as archive:
            packed = {name: archive.read(name).decode() for name in archive.namelist()}
        assert "miue-book/index.html" in packed and "miue-book/_images/a b.svg" in packed and len(packed) == 7
        assert not [name for name, text in packed.items() if "miue-book.zip" in name + text]


def test_the_first_page_links_the_copies_that_were_made_last(html, monkeypatch):
    monkeypatch.setattr(printing, "write", lambda html, out: out.write_bytes(b"%PDF"))
    home = html / "book" / "index.html"
    before = home.read_text()
    for asked in ({"pdf": True, "archive": True}, {"pdf": True, "archive": False}):
        copies.make(html, **asked)
        page = BeautifulSoup(home.read_text(), "html.parser")
        linked = [link["href"] for link in page.select("article > h1 + .miue-copies a")]
        assert linked == ["../miue-book.zip"] * asked["archive"] + ["../miue.pdf"]
        assert {path.name for path in html.glob("miue*")} == {link.removeprefix("../") for link in linked}
    copies.offer(html, [])
    assert home.read_text() == before


def test_pages_are_joined_in_order_and_their_links_lead_into_the_whole(html):
    whole = BeautifulSoup(printing.document(html), "html.parser")
    assert [page["id"] for page in whole.select(".miue-printed")] == ["book-index", "book-one", "book-two"]
    assert [(line["class"], line.get_text()) for line in whole.select(".miue-contents p")] == [
        (["level-1"], "A book"),
        (["level-0"], "Part"),
        (["level-1"], "1. One"),
        (["level-2"], "Two"),
    ]
    places = {tag["id"] for tag in whole.find_all(id=True)}
    links = {link.get_text(): link.get("href") for link in whole.select(".miue-printed a")}
    assert links == {
        "why": "#book-one--why",
        "here": "#book-one--why",
        "up": "#book-index",
        "index": None,
        "far": "https://example.org/",
    }
    assert {link.removeprefix("#") for link in links.values() if link and link.startswith("#")} <= places
    assert "clip" in places and "secret" not in whole.get_text() and "On the margin" not in whole.get_text()
    assert whole.img.attrs == {"src": "html/_images/a%20b.svg"} and whole.title.get_text() == "A <book>"
    loaded = [tag.get("href") or tag.get("src") for tag in whole.head.select("link, script")]
    assert loaded == ["html/_static/miue.css", "html/_static/mathjax/tex.js"]


def test_what_is_missing_is_said_in_one_line(html, monkeypatch, miue):
    with pytest.raises(InputError, match="html: .* holds no book/index.html"):
        copies.make(html / "none", pdf=False, archive=True)
    monkeypatch.setattr(printing.shutil, "which", lambda name: None)
    assert miue("book", "--pdf") == (
        2,
        "",
        "miue: pdf: Chromium prints it, and there is none; install chromium or google-chrome\n",
    )


def test_bookmarks_say_a_title_once_and_move_nothing():
    doubled = b"<</Title (2.3. 2.3. The lossThe loss)\n/Title (RecordRecord)/Title (2.3. The loss)/Title (Record 33)>>"
    mended = printing.named_once(doubled)
    assert mended.split() == [
        *(b"<</Title", b"(2.3.", b"The", b"loss)", b"/Title", b"(Record)"),
        *(b"/Title", b"(2.3.", b"The", b"loss)/Title", b"(Record", b"33)>>"),
    ]
    assert len(mended) == len(doubled) and mended.index(b"33)") == doubled.index(b"33)")


@pytest.mark.slow
def test_the_book_is_printed(html):
    try:
        printing.browser()
    except InputError as lacking:
        pytest.skip(str(lacking))
    (made,) = copies.make(html, pdf=True, archive=False)
    pdf = made.read_bytes()
    assert pdf.startswith(b"%PDF-") and b"/Outlines" in pdf
    assert len(re.findall(rb"/Type /Page\b", pdf)) == 5  # title, contents, three pages
    assert not list(html.parent.glob(".*"))
