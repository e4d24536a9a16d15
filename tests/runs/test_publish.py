"""What publishing refuses, on folders made by hand: no kernel is needed to tell a bad run from a good one."""

import errno
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from typer.testing import CliRunner

from miue import runs
from miue.cli import app
from miue.errors import InputError
from miue.publishing import publication
from miue.publishing.publication import page_name
from miue.runs import notebook
from miue.storage import files

METRICS = {"data": {"data": "CIFAR-10 (JPEG-75 copy)", "n": 4000}}


def make(root, name="small-1", metrics=METRICS, **changes):
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    cell = v4.new_code_cell("1 + 1", execution_count=1, outputs=[v4.new_output("stream", text="2\n")])
    write(folder, v4.new_notebook(cells=[v4.new_markdown_cell("# Two"), cell, v4.new_code_cell("  ")]), **changes)
    files.write_json(folder / "metrics.json", metrics)
    return folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "_config.yml").touch()
    return make(tmp_path)


def write(folder, book, **changes):
    nbformat.write(book, folder / "small.ipynb")
    digest = notebook.sha256(folder / "small.ipynb")
    status = {"state": "done", "error": None, "parameters": {}, "notebook": "small.ipynb", "notebook_sha256": digest}
    files.write_json(folder / "status.json", status | {"template": "book/experiments/small.md"} | changes)


def change(folder, action):
    book = notebook.load(folder / "small.ipynb")
    action(book.cells[1])
    write(folder, book)


def published(root):
    return sorted(path.name for path in (root / "book" / "results").iterdir())


def full_disk_after(copies):
    """A stand-in for `shutil.copyfile` that so many times does it."""
    left, copyfile = iter(range(copies)), shutil.copyfile

    def copy(source, target):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return copyfile(source, target)

    return copy


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
    (page,) = publication.publish([folder], "cifar10-a.b", tmp_path)
    assert page == tmp_path / "book" / "results" / "cifar10-a.b.ipynb"
    assert files.read_json(page.with_suffix(".json"))["metrics"] == METRICS
    assert publication.publish([folder], "cifar10-a.b", tmp_path) == [page]
    assert published(tmp_path) == ["cifar10-a.b.ipynb", "cifar10-a.b.json"]


@pytest.mark.parametrize("reason", BREAK)
def test_a_run_that_did_not_end_well_is_refused(folder, tmp_path, reason):
    BREAK[reason](folder)
    with pytest.raises(InputError, match=reason):
        publication.publish([folder], "cifar10-a", tmp_path)
    assert not (tmp_path / "book").exists()


@pytest.mark.parametrize("name", ["", "../x-y", "a/b-c", ".hidden-x", "a b-c", "index", "leaderboard"])
def test_names_that_are_no_page_are_refused(folder, tmp_path, name):
    with pytest.raises(InputError, match="name: "):
        publication.publish([folder], name, tmp_path)


def test_a_folder_without_a_book_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"holds no _config\.yml"):
        publication.publish([folder], "x-y", tmp_path / "runs")


@pytest.mark.parametrize(
    ("template", "data", "parameters", "name"),
    [
        ("cifar10", "CIFAR-10 (JPEG-75 copy)", {"preset": "laptop"}, "cifar10-jpeg75-4000-laptop"),
        ("information", "Digits-M", {"preset": "quick", "size": None}, "information-digits-m-4000-quick"),
        ("cifar100", "CIFAR-100", {"preset": "paper"}, "cifar100-4000-paper"),
        ("budget", "folder My pets, 64 px", {"preset": "quick", "size": 64}, "budget-my-pets-4000-64px-quick"),
    ],
)
def test_a_page_is_named_by_template_data_and_scale(tmp_path, template, data, parameters, name):
    metrics, path = {"data": {"data": data, "n": 4000}}, f"book/experiments/{template}.md"
    assert page_name(runs.load(make(tmp_path, metrics=metrics, parameters=parameters, template=path))) == name


def test_a_run_that_does_not_say_its_data_needs_a_name(tmp_path, folder):
    with pytest.raises(InputError, match="give a name with --name"):
        publication.publish([make(tmp_path, "other", {"two": 2})], None, tmp_path)


def test_a_name_that_was_made_replaces_no_page_of_another_experiment(tmp_path, folder):
    (page,) = publication.publish([folder], None, tmp_path)
    assert publication.publish([folder], None, tmp_path) == [page]
    other = make(tmp_path, "other", parameters={"seeds": [7]})
    with pytest.raises(InputError, match=rf"{page.stem} is the page of another experiment \(seeds\)"):
        publication.publish([other], None, tmp_path)
    publication.publish([other], page.stem, tmp_path)
    assert files.read_json(page.with_suffix(".json"))["parameters"] == {"seeds": [7]}


def test_the_same_experiment_is_known_again_although_its_paths_are_shortened(tmp_path, folder):
    runs_with_a_path = make(tmp_path, "path", parameters={"records": str(tmp_path / "records.jsonl")})
    (page,) = publication.publish([runs_with_a_path], None, tmp_path)
    assert files.read_json(page.with_suffix(".json"))["parameters"] == {"records": "./records.jsonl"}
    publication.publish([runs_with_a_path], None, tmp_path)


def test_several_runs_are_published_together_or_not_at_all(tmp_path, folder, monkeypatch):
    other = make(tmp_path, "other", {"data": {"data": "Digits-M", "n": 10}})
    bad = make(tmp_path, "bad", state="failed")
    with pytest.raises(InputError, match="bad cannot be published"):
        publication.publish([folder, other, bad], root=tmp_path)
    with pytest.raises(InputError, match="would both be small-cifar10-jpeg75-4000"):
        publication.publish([folder, make(tmp_path, "twin")], root=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full_disk_after(1))
        with pytest.raises(OSError, match="the disk of .* is full"):
            publication.publish([folder, other], root=tmp_path)
    assert published(tmp_path) == []
    assert [page.stem for page in publication.publish([folder, other], root=tmp_path)] == [
        "small-cifar10-jpeg75-4000",
        "small-digits-m-10",
    ]


def test_the_command_names_pages_and_refuses_one_name_for_two(tmp_path, folder):
    book, other = ["--book", str(tmp_path)], make(tmp_path, "other", {"data": {"data": "Digits-M", "n": 10}})
    both = CliRunner().invoke(app, ["publish", str(folder), str(other), *book])
    assert both.exit_code == 0 and both.output.count("page: ") == 2
    refused = CliRunner().invoke(app, ["publish", str(folder), str(other), "--name", "a-b", *book])
    assert isinstance(refused.exception, InputError)
    one = CliRunner().invoke(app, ["publish", str(folder), "--name", "a-b", *book])
    assert one.exit_code == 0 and "a-b.ipynb" in published(tmp_path)


def test_paths_are_shortened_in_texts_but_not_in_images(tmp_path):
    home = tmp_path / "home"
    value = {"text": f"{home}/x, {home}, {home}s, a{home}", "image/png": f"{home}", "n": 1, "list": [f"{home}"]}
    short = notebook.shorten(value, {tmp_path: ".", home: "~"})
    assert short == {"text": f"~/x, ~, ./homes, a{home}", "image/png": f"{home}", "n": 1, "list": ["~"]}


@pytest.mark.parametrize(
    "parameters",
    [
        {"records": "/data/records.jsonl"},
        {"data": "folder:/data/images"},
        {"data": f"folder:{Path.home()}/images"},
        {"folders": ["inside", "/data/images"]},
    ],
)
def test_a_place_on_this_machine_is_not_published(tmp_path, folder, parameters):
    run = make(tmp_path, "elsewhere", parameters=parameters)
    with pytest.raises(InputError, match=f"{next(iter(parameters))}: /.* is a place on this machine"):
        publication.publish([run], "small-3-quick", tmp_path)
    assert not (tmp_path / "book" / "results" / "small-3-quick.json").exists()
