"""Chapters that are executed beforehand, side by side, and found by what renders the pages."""

import importlib
import re
import time
from pathlib import Path

import pytest

from miue.publishing import chapters
from miue.storage import code

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for folder in (".", "appendix", "experiments") for path in (ROOT / "book" / folder).glob("*.md"))


@pytest.fixture(autouse=True)
def one_version(monkeypatch):
    monkeypatch.setattr(code, "code_hash", lambda module: "a")


def second(book, code):
    text = (book.root / "book" / "chapter.md").read_text()
    head, _, _ = text.partition("```{code-cell}")
    book.write("book/other.md", f"{head}```{{code-cell}} ipython3\n{code}\n```\n")


def test_two_chapters_meet_and_neither_is_executed_again(small_book, monkeypatch):
    monkeypatch.setattr(chapters, "at_once", lambda: (2, 1))
    meet = "import pathlib, time\npathlib.Path('{}').touch()\nwhile not pathlib.Path('{}').exists(): time.sleep(0.1)"
    small_book.chapter(meet.format("here", "there"))
    second(small_book, meet.format("there", "here") + "\nimport os; assert os.environ['OMP_NUM_THREADS'] == '1'")
    assert chapters.execute(small_book.root, {"MIUE_TOLD": "yes"}) == []
    for name in ("here", "there"):
        (small_book.root / "book" / name).unlink()
    began = time.monotonic()
    assert chapters.execute(small_book.root, {}) == []
    assert time.monotonic() - began < 2 and not (small_book.root / "book" / "here").exists()


def test_an_appendix_is_executed_in_its_own_folder(small_book):
    small_book.chapter("1")
    head, _, _ = (small_book.root / "book" / "chapter.md").read_text().partition("```{code-cell}")
    small_book.write(
        "book/appendix/chapter.md", f"{head}```{{code-cell}} ipython3\nopen('seen', 'w').write('x');\n```\n"
    )
    assert chapters.execute(small_book.root, {}) == []
    assert (small_book.root / "book" / "appendix" / "seen").exists()


def test_what_fails_is_told_and_the_rest_is_kept(small_book):
    small_book.chapter("1 / 0")
    second(small_book, "import os; print(os.environ['MIUE_TOLD'])")
    (failed,) = chapters.execute(small_book.root, {"MIUE_TOLD": "yes"})
    assert "ZeroDivisionError" in failed
    small_book.chapter("1 / 1")
    (small_book.root / "book" / "chapter.md").unlink()
    assert chapters.execute(small_book.root, {}) == []  # with no MIUE_TOLD: the other is known


@pytest.mark.parametrize(("given", "expected"), [(None, 1), ("1", 1), ("64", 64), ("none", 1)])
def test_threads_that_were_asked_for_stay(given, expected, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    workers, threads = chapters.at_once()
    assert threads == expected and 1 <= workers <= 4


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_a_page_imports_from_the_package_is_there(page):
    """Pages are executed only when the book is built; a name that has moved is seen at once."""
    for line in re.findall(r"^ *from (miue[\w.]*) import (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        module, names = line
        for name in (part.split(" as ")[0].strip() for part in names.strip("() ").split(",")):
            try:
                importlib.import_module(f"{module}.{name}")
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
