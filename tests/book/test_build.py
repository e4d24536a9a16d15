"""What `build.build` does around Jupyter Book, with a stand-in for it: what is kept, deleted, done again."""

import subprocess
from types import SimpleNamespace

import pytest

from miue.publishing import build
from miue.storage import code


@pytest.fixture
def jupyter_book(small_book, monkeypatch):
    """Stand in for Jupyter Book: writes one page, ends with `code` (an exception is raised)."""
    calls = SimpleNamespace(count=0, code=0, page="<p>One</p>", failed=[])

    def stand_in(command, **options):
        calls.count += 1
        (small_book.root / build.HTML).mkdir(parents=True, exist_ok=True)
        (small_book.root / build.HTML / "index.html").write_text(calls.page)
        if isinstance(calls.code, BaseException):
            raise calls.code
        return SimpleNamespace(returncode=calls.code)

    monkeypatch.setattr(subprocess, "run", stand_in)
    monkeypatch.setattr(build.chapters, "execute", lambda *given: calls.failed)
    return calls


@pytest.mark.parametrize("code", [1, KeyboardInterrupt()])
def test_a_build_that_fails_leaves_nothing_to_be_read(small_book, jupyter_book, code):
    jupyter_book.code = code
    (small_book.root / "_build" / ".doctrees").mkdir(parents=True)
    (small_book.root / "_build" / ".jupyter_cache").mkdir()
    with pytest.raises((build.BookError, KeyboardInterrupt)):
        build.build(small_book.root)
    left = {path.name for path in (small_book.root / "_build").iterdir()}
    assert left == {".jupyter_cache", "progress.log"}


def test_pages_are_kept_after_a_whole_build_and_made_anew_after_one_that_was_killed(small_book, jupyter_book):
    html = small_book.root / build.HTML
    assert build.build(small_book.root) == html / "index.html"
    (html / "kept.html").touch()
    build.build(small_book.root)
    assert (html / "kept.html").exists()
    (small_book.root / build.WHOLE).unlink()  # what a killed build leaves
    build.build(small_book.root)
    assert not (html / "kept.html").exists()


def test_pages_are_rendered_again_when_what_they_are_made_of_has_changed(small_book, jupyter_book, monkeypatch):
    for _ in range(2):
        build.build(small_book.root)
    assert jupyter_book.count == 1
    (small_book.root / "book" / "new.md").write_text("# New\n")
    build.build(small_book.root)
    assert jupyter_book.count == 2
    monkeypatch.setattr(code, "code_hash", lambda module: "other code")
    build.build(small_book.root)
    assert jupyter_book.count == 3


def test_pages_are_checked_again_only_where_they_were_rendered_again(small_book, jupyter_book, monkeypatch):
    checked = []
    monkeypatch.setattr(build, "check", lambda html: checked.append(html) or [])
    for _ in range(2):
        build.build(small_book.root)
    assert len(checked) == 1
    (small_book.root / build.WHOLE).unlink()
    build.build(small_book.root)
    assert len(checked) == 2


def test_a_page_that_is_not_fit_to_be_read_fails_each_time(small_book, jupyter_book):
    jupyter_book.page = "<img src='none.png' alt='A line that rises steadily'/>"
    for _ in range(2):
        with pytest.raises(build.BookError, match=r"index\.html: image none\.png is missing"):
            build.build(small_book.root)


def test_a_chapter_that_fails_ends_the_build_before_anything_is_rendered(small_book, jupyter_book):
    jupyter_book.failed = ["chapter: ZeroDivisionError"]
    with pytest.raises(build.BookError, match="chapter: ZeroDivisionError"):
        build.build(small_book.root)
    assert jupyter_book.count == 0
