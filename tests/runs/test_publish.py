"""What publishing refuses, on folders made by hand: no kernel is needed to tell a bad run from a good one."""

import nbformat
import pytest
from nbformat import v4

from miue import runs, store
from miue.errors import InputError
from miue.runs import notebook


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "_config.yml").touch()
    folder = tmp_path / "runs" / "small-1"
    folder.mkdir(parents=True)
    cell = v4.new_code_cell("1 + 1", execution_count=1, outputs=[v4.new_output("stream", text="2\n")])
    write(folder, v4.new_notebook(cells=[v4.new_markdown_cell("# Two"), cell, v4.new_code_cell("  ")]))
    store.write_json(folder / "metrics.json", {"two": 2})
    return folder


def write(folder, book, **changes):
    nbformat.write(book, folder / "small.ipynb")
    digest = notebook.sha256(folder / "small.ipynb")
    status = {"state": "done", "error": None, "parameters": {}, "notebook": "small.ipynb", "notebook_sha256": digest}
    store.write_json(folder / "status.json", status | changes)


def change(folder, action):
    book = notebook.load(folder / "small.ipynb")
    action(book.cells[1])
    write(folder, book)


BREAK = {
    "running": lambda f: write(f, notebook.load(f / "small.ipynb"), state="running"),
    "interrupted": lambda f: write(f, notebook.load(f / "small.ipynb"), state="interrupted"),
    "metrics.json is missing": lambda f: (f / "metrics.json").unlink(),
    "no JSON": lambda f: (f / "metrics.json").write_text('{"two": '),
    "not the one that was executed": lambda f: (f / "small.ipynb").write_text((f / "small.ipynb").read_text() + " "),
    "small.ipynb is missing": lambda f: (f / "small.ipynb").unlink(),
    "cell 2: KeyError: 'x'": lambda f: change(
        f, lambda c: c.outputs.append(v4.new_output("error", ename="KeyError", evalue="'x'", traceback=[]))
    ),
    "cell 2 was not executed": lambda f: change(f, lambda c: c.update(execution_count=None)),
    "cell 2 wrote to standard error: careful": lambda f: change(
        f, lambda c: c.outputs.append(v4.new_output("stream", name="stderr", text="be\ncareful\n"))
    ),
    "no readable status.json": lambda f: (f / "status.json").write_text("[]"),
}


def test_a_good_run_is_copied_and_replaces_the_one_before(folder, tmp_path):
    page = runs.publish(folder, "cifar10-a.b", tmp_path)
    assert page == tmp_path / "book" / "results" / "cifar10-a.b.ipynb"
    assert store.read_json(page.with_suffix(".json"))["metrics"] == {"two": 2}
    assert runs.publish(folder, "cifar10-a.b", tmp_path) == page
    assert sorted(path.name for path in page.parent.iterdir()) == ["cifar10-a.b.ipynb", "cifar10-a.b.json"]


@pytest.mark.parametrize("reason", BREAK)
def test_a_run_that_did_not_end_well_is_refused(folder, tmp_path, reason):
    BREAK[reason](folder)
    with pytest.raises(InputError, match=reason):
        runs.publish(folder, "cifar10", tmp_path)
    assert not (tmp_path / "book").exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_names_that_are_no_file_names_are_refused(folder, tmp_path, name):
    with pytest.raises(InputError, match="name: "):
        runs.publish(folder, name, tmp_path)


def test_a_folder_without_a_book_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"holds no _config\.yml"):
        runs.publish(folder, "x", tmp_path / "runs")


def test_paths_are_shortened_in_texts_but_not_in_pictures(tmp_path):
    home = tmp_path / "home"
    value = {"text": f"{home}/x, {home}, {home}s, a{home}", "image/png": f"{home}", "n": 1, "list": [f"{home}"]}
    short = notebook.shorten(value, {tmp_path: ".", home: "~"})
    assert short == {"text": f"~/x, ~, ./homes, a{home}", "image/png": f"{home}", "n": 1, "list": ["~"]}
