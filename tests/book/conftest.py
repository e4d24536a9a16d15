import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from samples import FRONT_MATTER

from miue.runs import notebook
from miue.runs.template import read_markdown
from miue.storage import files

ROOT = Path(__file__).parents[2]


class Book:
    """A small book with the real `_config.yml` and extension: an index, one chapter, one result."""

    TOC = """format: jb-book
root: book/index
parts:
  - caption: The story
    numbered: true
    chapters:
      - file: book/chapter
  - caption: Results
    chapters:
      - file: book/results/index
      - glob: book/results/cifar10*
      - glob: book/results/nothing*
"""

    def __init__(self, root: Path):
        self.root = root
        shutil.copytree(ROOT / "book" / "_static", root / "book" / "_static")
        shutil.copy(ROOT / "_config.yml", root)
        self.write("_toc.yml", self.TOC)
        self.write("book/references.bib", "@misc{one, title={One}, author={A. Author}, year={2026}}\n")
        self.write("book/index.md", "# A book\n\n{cite}`one`\n\n```{bibliography}\n```\n")
        self.write("book/results/index.md", "# Results\n\n```{miue-results}\n```\n")
        self.chapter("print('from the chapter')")
        self.result("cifar10-small")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def chapter(self, code: str, text: str = "") -> None:
        self.write(
            "book/chapter.md", f"{FRONT_MATTER}# A chapter\n\n{text}\n\n```{{code-cell}} ipython3\n{code}\n```\n"
        )

    def result(self, name: str, change=lambda cell: None, **record) -> Path:
        """Write a result: its one cell shows what no execution of it would give."""
        cell = v4.new_code_cell("print('executed again')", execution_count=1)
        cell.outputs.append(v4.new_output("stream", text="as it was run\n"))
        change(cell)
        page = self.root / "book" / "results" / f"{name}.ipynb"
        page.parent.mkdir(parents=True, exist_ok=True)
        book = v4.new_notebook(cells=[v4.new_markdown_cell(f"# The run {name}"), cell])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(book, page)
        digest = notebook.sha256(page)
        good = {"state": "done", "error": None, "parameters": {"data": "digits_m"}, "notebook_sha256": digest}
        files.write_json(page.with_suffix(".json"), good | record)
        return page

    def render(self, **options) -> object:
        """Build in this process as `jupyter-book build -W -n` does; return 0, a status or the exception."""
        from jupyter_book.sphinx import build_sphinx

        overrides = {
            "external_toc_path": str(self.root / "_toc.yml"),
            "latex_individualpages": False,
            "nitpicky": True,
        }
        return build_sphinx(
            self.root,
            self.root / "_build" / "html",
            noconfig=True,
            path_config=self.root / "_config.yml",
            confoverrides=overrides,
            **{"warningiserror": True, "keep_going": True, "quiet": True} | options,
        )

    def page(self, name: str) -> str:
        return (self.root / "_build" / "html" / f"{name}.html").read_text(encoding="utf-8")


@pytest.fixture
def small_book(tmp_path):
    return Book(tmp_path)


@pytest.fixture
def sources():
    """The chapters and templates of the real book, read as notebooks."""
    return {path: read_markdown(path) for path in sorted((ROOT / "book").rglob("*.md"))}
