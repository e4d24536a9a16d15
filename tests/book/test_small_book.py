"""Silent failures 0 to 3 of Jupyter Book, each in a small book with the real settings and the real extension."""

import json
import re
import shutil
from pathlib import Path

import altair as alt
import nbformat
import pandas as pd
import pytest
import torch
from nbformat import v4
from sphinx.errors import ExtensionError

import miue
from miue.experiments.interactive import Interactive, png, slider
from miue.publishing import build
from miue.storage import code, files

pytestmark = pytest.mark.slow

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SECRET = "print(open('secret.txt').read())"


def figure(cell):
    shown = {"image": {"alt": "One dot of one colour"}, "figure": {"caption": "A dot.", "name": "fig-dot"}}
    cell.metadata["mystnb"] = shown
    cell.outputs.append(v4.new_output("display_data", data={"image/png": DOT}))


def failed(result) -> bool:
    return isinstance(result, Exception) or bool(result)


def test_a_good_book_passes_offline_and_shows_results_as_they_were_run(small_book):
    small_book.result("cifar10-small", figure, provenance={"device": "one processor", "commit": "abc"})
    small_book.write(
        "book/experiments/small.md",
        "# T\n\n```{code-cell} ipython3\n:tags: [parameters]\n\nn: int | None = 3  # training images\n```\n",
    )
    text = "$$a = \\det\\Sigma$$ (one)\n\n{eq}`one`\n\n```{miue-parameters} small\n```"
    small_book.chapter("import matplotlib.pyplot as plt\nplt.plot([1, 2]);", text)
    chapter = small_book.root / "book" / "chapter.md"
    alt = "---\nmystnb:\n  image:\n    alt: A line that rises from left to right\n---\nimport matplotlib"
    chapter.write_text(chapter.read_text().replace("import matplotlib", alt, 1))
    assert not failed(small_book.render())
    assert build.check(small_book.root / "_build" / "html") == []

    # Published pages are not executed again (0).
    page = small_book.page("book/results/cifar10-small")
    assert "as it was run" in page and "executed again\n" not in page
    assert "training images" in small_book.page("book/chapter")
    table = re.search("<table.*</table>", small_book.page("book/results/index"), re.DOTALL)[0]
    assert "one processor" in table and "cifar10-small.html" in table
    assert "mathjax/tex-chtml.js" in small_book.page("book/chapter")

    # A result that comes is in the table of results and in the contents of every page.
    small_book.result("cifar10-more", figure)
    assert not failed(small_book.render())
    assert 'id="cifar10-more-fig-dot"' in small_book.page("book/results/cifar10-more")
    assert "The run cifar10-more" in small_book.page("book/chapter")
    assert "cifar10-more.html" in re.search("<table.*</table>", small_book.page("book/results/index"), re.DOTALL)[0]

    # Without its text, the figure is found by the check.
    chapter.write_text(chapter.read_text().replace("A line that rises from left to right", "line.png"))
    assert not failed(small_book.render())
    assert "no alternative text" in "".join(build.check(small_book.root / "_build" / "html"))


def test_chapters_follow_the_code_of_the_package(small_book, monkeypatch):
    seen = []
    small_book.chapter(SECRET)
    for secret, digest in (("one", "a"), ("two", "a"), ("three", "b")):
        small_book.write("book/secret.txt", secret)
        small_book.chapter(SECRET, text=f"Read {len(seen)} times before.")  # read again, not executed again
        monkeypatch.setattr(code, "code_hash", lambda module, digest=digest: digest)
        assert not failed(small_book.render())
        page = small_book.page("book/chapter")
        seen.append(next(word for word in ("one", "two", "three") if f"\n{word}\n" in page or f">{word}\n" in page))
    assert seen == ["one", "one", "three"]  # the second build shows that the cache is at work
    assert len(list((small_book.root / "_build" / ".jupyter_cache").glob("code-*"))) == 1


@pytest.mark.parametrize("code", ["1 / 0", "import os; os._exit(0)"])
def test_a_chapter_that_fails_fails_the_build_even_where_warnings_do_not(small_book, code):
    small_book.chapter(code)
    assert failed(small_book.render(warningiserror=False))


def test_a_chapter_that_writes_to_standard_error_fails_the_build(small_book):
    small_book.chapter("import sys; print('careful', file=sys.stderr)")
    assert failed(small_book.render())


def test_a_result_that_went_bad_after_a_good_build_fails_the_next(small_book):
    assert not failed(small_book.render())
    record = small_book.root / "book" / "results" / "cifar10-small.json"
    files.write_json(record, json.loads(record.read_text()) | {"state": "failed"})
    assert isinstance(small_book.render(), ExtensionError)


def test_a_warning_is_not_forgotten_and_leaves_no_pages(small_book, capfd):
    small_book.chapter("print(1)", text="{ref}`nowhere`")
    for _ in range(2):
        with pytest.raises(build.BookError, match="jupyter-book ended with"):
            build._render(small_book.root, {})
        assert "nowhere" in capfd.readouterr().err
        assert not (small_book.root / build.HTML).exists()


def test_names_in_code_lead_to_the_reference_also_on_pages_that_are_only_written_anew(small_book):
    folder = Path("book", "reference")
    shutil.copytree(Path(__file__).parents[2] / folder, small_book.root / folder)
    pages = sorted(path.stem for path in (small_book.root / folder).glob("*.md") if path.stem != "index")
    sections = "".join(f"          - file: {folder / page}\n" for page in pages)
    part = f"  - caption: Reference\n    chapters:\n      - file: {folder / 'index'}\n        sections:\n{sections}"
    small_book.write("_toc.yml", small_book.TOC + part)
    index = (small_book.root / "book" / "index.md").read_text()
    small_book.write("book/index.md", f"{index}\n```python\nimport miue\n\nmiue.load\n```\n")
    code = "from miue.seeds import stream\n\nstream(0, 'part');"
    for text in ("```{exercise}\nAn exercise is a section without a title.\n```", "Another text."):
        small_book.chapter(code, text)
        assert not failed(small_book.render())
        assert build.check(small_book.root / "_build" / "html") == []
        assert "reference/shared.html#miue.seeds.stream" in small_book.page("book/chapter")
        assert "reference/data.html#miue.load" in small_book.page("book/index")
    table = re.search("<table.*</table>", small_book.page("book/reference/index"), re.DOTALL)[0]
    assert re.findall(r"<tr[^>]*><td><p>(<\w+)", table) == ["<a"] * len(miue.__all__)


def test_a_chapter_can_be_taken_away_and_opened_elsewhere_where_its_repository_is_known(small_book, monkeypatch):
    sources = small_book.root / "_build" / "html" / "_sources" / "book"
    assert not failed(small_book.render())
    made = nbformat.read(sources / "chapter.ipynb", as_version=4)
    assert "from the chapter" in str(made.cells[-1].outputs) and (sources / "chapter.md").exists()
    page = small_book.page("book/chapter")
    assert "_sources/book/chapter.ipynb" in page and "colab" not in page

    monkeypatch.setenv("MIUE_REPOSITORY", "https://github.com/someone/the.book")
    assert not failed(small_book.render())
    first = nbformat.read(sources / "chapter.ipynb", as_version=4).cells[0].source
    assert "git clone --quiet --depth 1 https://github.com/someone/the.book the-book" in first
    assert "%cd the-book/book" in first
    page = small_book.page("book/chapter")
    place = "colab.research.google.com/github/someone/the.book/blob/gh-pages/_sources/book/chapter.ipynb"
    assert place in page and "mybinder.org/v2/gh/someone/the.book/HEAD?urlpath=lab/tree/book/chapter.md" in page
    assert "mybinder" not in small_book.page("book/results/index")
    assert build.check(small_book.root / "_build" / "html") == []

    monkeypatch.setenv("MIUE_REPOSITORY", "elsewhere")
    assert isinstance(small_book.render(), ExtensionError) or failed(small_book.render())


def test_an_interactive_figure_brings_its_library_and_a_still_for_who_cannot_run_it(small_book):
    small_book.chapter(
        "import altair as alt\n"
        "from miue.experiments.interactive import Interactive, slider\n"
        "line = alt.Chart(alt.sequence(0, 3, 1, as_='x')).transform_calculate(y='datum.x * rise').mark_line()\n"
        "chart = line.encode(x='x:Q', y='y:Q').add_params(slider('rise', 0, 2, 0.5, 1, 'how steep'))\n"
        "Interactive(chart, 'A line that a slider <tilts>')"
    )
    assert not failed(small_book.render())
    page = small_book.page("book/chapter")
    assert 'aria-label="A line that a slider &lt;tilts&gt;"' in page and "<svg" in page and '"how steep"' in page
    for name in ("vega", "vega-lite", "vega-embed"):
        assert f"_static/vega-6/{name}.min.js" in page
    assert "_static/interactive.js" in page and "vega" not in small_book.page("book/index")
    assert build.check(small_book.root / "_build" / "html") == []


def test_an_interactive_figure_holds_each_image_once_and_tells_what_its_sliders_say():
    address = png(torch.zeros(3, 2, 2, dtype=torch.uint8))
    chart = alt.Chart(pd.DataFrame({"url": [address, address]})).mark_image().encode(url="url:N")
    chart = chart.add_params(slider("n", 0, 1, 1, 0, "samples"))
    shown = Interactive(chart, "A dot", stops={"n": [0.5, 1000]}, play="n")._repr_mimebundle_()
    spec = json.loads(re.search("<script[^>]*>(.*?)</script>", shown["text/html"])[1])
    assert [row["url"] for row in next(iter(spec["datasets"].values()))] == ["image 0"] * 2
    assert address in shown["image/svg+xml"] and shown["image/svg+xml"] in shown["text/html"]
    assert spec["usermeta"] == {"stops": {"n": ["0.5", "1,000"]}, "play": "n"}
