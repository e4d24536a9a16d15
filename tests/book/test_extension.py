"""The local extension and the settings, without a build: what is refused, what is cached where, what is excluded."""

from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from nbformat import v4
from sphinx.errors import ExtensionError

from miue.publishing import leaderboard
from miue.publishing.extension import pages, records
from miue.runs import notebook
from miue.storage import code, files

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())


@pytest.fixture
def refuse(small_book):
    def call(name: str = "cifar10-small", suffix: str = ".ipynb") -> None:
        names = {"book/index", "book/chapter", "book/results/index", f"book/results/{name}"}
        paths = {name: str(small_book.root / f"{name}{suffix}") for name in names}
        pages.refuse_bad_results(None, SimpleNamespace(found_docs=names, doc2path=paths.get), [])

    return call


def _error(cell):
    cell.outputs.append(v4.new_output("error", ename="KeyError", evalue="'x'", traceback=[]))


def test_a_good_result_is_let_in(refuse):
    refuse()


@pytest.mark.parametrize(
    ("change", "record", "reason"),
    [
        (_error, {}, "cell 2: KeyError: 'x'"),
        (lambda cell: cell.update(execution_count=None), {}, "cell 2 was not executed"),
        (
            lambda cell: None,
            {"state": "failed", "error": "the kernel died"},
            "did not end well: 'failed', the kernel died",
        ),
        (lambda cell: None, {"state": "running"}, "did not end well"),
        (lambda cell: None, {"notebook_sha256": "0" * 64}, "not the one that was executed"),
        (lambda cell: None, {"notebook_sha256": None}, "not the one that was executed"),
    ],
)
def test_a_bad_result_is_refused(small_book, refuse, change, record, reason):
    small_book.result("cifar10-small", change, **record)
    with pytest.raises(ExtensionError, match=f"book/results/cifar10-small: this result is not published.*{reason}"):
        refuse()


def test_a_result_without_a_record_or_without_a_notebook_is_refused(small_book, refuse):
    record = small_book.root / "book" / "results" / "cifar10-small.json"
    for text in ("[1]", '{"state":', ""):
        record.write_text(text)
        with pytest.raises(ExtensionError, match=r"cifar10-small\.json is missing or unreadable"):
            refuse()
    record.unlink()
    with pytest.raises(ExtensionError, match=r"cifar10-small\.json is missing or unreadable"):
        refuse()
    small_book.write("book/results/words.md", "# A result in words\n")
    with pytest.raises(ExtensionError, match="no executed notebook"):
        refuse("words", ".md")


def test_the_cache_follows_the_code_and_what_chapters_read(tmp_path, monkeypatch):
    app, config = SimpleNamespace(srcdir=str(tmp_path)), SimpleNamespace()
    records = tmp_path / "book" / "results" / "records"
    records.mkdir(parents=True)
    paths = []
    for digest, record in (("a", "1"), ("b", "1"), ("b", "2")):
        monkeypatch.setattr(code, "code_hash", lambda module, digest=digest: digest)
        (records / "some.jsonl").write_text(record)
        pages.set_cache(app, config)
        paths.append(Path(config.nb_execution_cache_path))
        paths[-1].mkdir(parents=True)
    assert [path.exists() for path in paths] == [False, False, True]


@pytest.mark.parametrize("name", ["book/results/cifar10-digits-m-3000-quick.ipynb", "book/experiments/cifar10.md"])
def test_results_and_templates_are_not_executed_by_the_book(name):
    patterns = CONFIG["execute"]["exclude_patterns"]
    assert any(PurePosixPath("/somewhere/clone", name).match(pattern) for pattern in patterns)
    assert not any(PurePosixPath("/somewhere/clone/book/mi_ue.md").match(pattern) for pattern in patterns)


def test_settings_that_the_book_rests_on():
    execute, sphinx = CONFIG["execute"], CONFIG["sphinx"]["config"]
    assert execute["execute_notebooks"] == "cache" and execute["raise_on_error"] and execute["timeout"] > 0
    assert execute["stderr_output"] in ("remove-warn", "warn")
    assert "miue.publishing.extension" in sphinx["extensions"] and "sphinx-mathjax-offline" in sphinx["extensions"]
    assert "sphinx_thebe" not in sphinx["extensions"] and sphinx["nb_ipywidgets_js"] == {}
    assert CONFIG["only_build_toc_files"]


def test_sources_are_notebooks_without_outputs(sources):
    for path, book in sources.items():
        for cell in book.cells:
            if cell.cell_type == "code":
                assert book.metadata["kernelspec"]["name"] == "python3", path
                assert not cell.outputs and cell.execution_count is None, path


def test_a_result_is_titled_by_its_data_and_scale_with_its_box_below(small_book):
    page = small_book.result("cifar10-small")
    files.write_json(
        page.with_suffix(".json"),
        files.read_json(page.with_suffix(".json"))
        | {"metrics": {"data": {"data": "Digits-M", "n": 3000}}, "parameters": {"preset": "quick"}},
    )
    template = nbformat.read(page, as_version=4)
    template.cells[0].source = '# Some "question"\n\nWhat came out.'
    source = [nbformat.writes(template)]
    found = {"book/results/cifar10-small", "book/results/index", "book/results/leaderboard"}
    env = SimpleNamespace(found_docs=found, note_dependency=lambda path: None)
    pages.tell_apart(SimpleNamespace(srcdir=small_book.root, env=env), "book/results/cifar10-small", source)
    first = nbformat.reads(source[0], as_version=4).cells[0].source.splitlines()
    assert first[0] == '# Some "question": Digits-M, 3,000 images, quick'
    assert first.index("```{miue-header}") < first.index("What came out.")


def test_a_result_whose_first_cell_is_no_title_is_refused(small_book, refuse):
    page = small_book.result("cifar10-small")
    book = nbformat.read(page, as_version=4)
    book.cells.reverse()
    nbformat.write(book, page)
    record = page.with_suffix(".json")
    files.write_json(record, files.read_json(record) | {"notebook_sha256": notebook.sha256(page)})
    with pytest.raises(ExtensionError, match="its first cell is no title"):
        refuse()


def test_all_columns_of_the_leaderboard_are_fields_of_its_rows():
    shown = {name for name, _ in records.COLUMNS.values()}
    assert shown <= set(leaderboard.rows(leaderboard.trials({})).columns)


def test_the_table_library_lies_in_the_book_with_its_licence():
    folder = ROOT / "book" / "_static" / records.TABLES
    assert "MIT License" in (folder / "License.txt").read_text()
    assert records.TABLES.partition("-")[2] in (folder / "dataTables.min.js").read_text(encoding="utf-8")[:40]


def test_a_page_of_any_valid_name_is_in_the_contents():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    globs = [trial["glob"] for part in contents["parts"] for trial in part["chapters"] if "glob" in trial]
    assert globs == ["book/results/*-*"]
