"""The book: its chapters executed, Jupyter Book, and a check of the pages that came out."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from miue import progress
from miue.publishing import chapters, publication
from miue.publishing.page_check import check
from miue.runs import notebook
from miue.runs.execution import waiting
from miue.runs.watch import passed_on
from miue.storage import cache, code

__all__ = ["BookError", "build", "check"]

BUILD = Path("_build")
HTML = BUILD / "html"
WHOLE = BUILD / "whole"
"""Stands while the last build ended without a warning, and holds the digest of what it was made of. Sphinx reads only
what changed: without this mark a page that warned once would be taken for good by the next build."""

CHECKED = BUILD / "checked"
"""The same digest, where the check of these pages found nothing."""


class BookError(RuntimeError):
    """The book could not be built, or a page of it is not fit to be read; the message lists why."""


def build(root: str | Path = ".") -> Path:
    """Execute the chapters, render `_build/html`, check every page.

    What has not changed is not done again: the outputs of chapters are kept in `_build/.jupyter_cache`, by a hash of
    the package's code and of what chapters read.

    Args:
        root: the repository, the folder that holds `_config.yml`.

    Returns:
        The path of the book's first page.

    Raises:
        InputError: `root` holds no book, or the packages of `miue[book]` are missing.
        BookError: a chapter failed, Sphinx warned, or the check found something.
    """
    root = publication.repository(root)
    if not _unchanged(root):
        with passed_on(root / BUILD / "progress.log") as log:
            # The kernels of chapters show their progress here, not in pages, and are those of this Python.
            environment = {"MIUE_PROGRESS": str(log), "JUPYTER_PREFER_ENV_PATH": "1", **waiting()}
            if failed := chapters.execute(root, environment):
                raise BookError("\n".join(["chapters did not run to their end:", *failed]))
            _render(root, environment)
    made_of = (root / WHOLE).read_text()
    if not (root / CHECKED).exists() or (root / CHECKED).read_text() != made_of:
        if problems := check(root / HTML):
            raise BookError("\n".join(["the pages are not fit to be read:", *problems]))
        (root / CHECKED).write_text(made_of)
    return root / HTML / "index.html"


def _render(root: Path, environment: dict[str, str]) -> None:
    """Call Jupyter Book with warnings as errors; after a failure nothing is left that could be read."""
    whole = root / WHOLE
    if not whole.exists():
        _forget(root)
    whole.unlink(missing_ok=True)
    (root / CHECKED).unlink(missing_ok=True)
    start = "import sys; from jupyter_book.cli.main import main; sys.argv[0] = 'jupyter-book'; main()"
    command = [sys.executable, "-c", start, "build", str(root), "--warningiserror", "--nitpick", "--keep-going"]
    try:
        done = subprocess.run(command, cwd=root, env=os.environ | environment, check=False)
    except BaseException:
        _forget(root)
        raise
    if done.returncode:
        _forget(root)
        raise BookError(f"jupyter-book ended with {done.returncode}; the reason stands above")
    whole.write_text(_sources(root))


def _unchanged(root: Path) -> bool:
    """Whether the pages are there, and what they are made of is what it was."""
    whole = root / WHOLE
    if not whole.exists() or not (root / HTML / "index.html").exists() or whole.read_text() != _sources(root):
        return False
    progress.say("pages: nothing has changed since they were rendered")
    return True


def _sources(root: Path) -> str:
    """Digest of all that the pages are made of: the book, its settings, the package, Jupyter Book itself."""
    settings = [root / name for name in ("_config.yml", "_toc.yml", "constraints.txt")]
    files = sorted(f for f in [*settings, *(root / "book").rglob("*")] if f.is_file() and f.suffix != ".pyc")
    contents = {str(f.relative_to(root)): notebook.sha256(f) for f in files}
    told = {"code": code.code_hash("miue"), "jupyter_book": version("jupyter-book")}
    return cache.key(contents=contents, repository=os.environ.get("MIUE_REPOSITORY", ""), **told)


def _forget(root: Path) -> None:
    """Delete pages and what Sphinx remembers of them; the outputs of chapters that succeeded stay."""
    for folder in (root / HTML, root / BUILD / ".doctrees"):
        if folder.exists():
            progress.say(f"deleting {folder.relative_to(root)}: the last build did not end well")
            shutil.rmtree(folder)
