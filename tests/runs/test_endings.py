"""How a run ends, what is left and what the command line says, with a stand-in for the kernel."""

import errno
import json
import threading
from pathlib import Path

import pytest
from nbformat import v4

from miue import progress, runs
from miue.errors import InputError
from miue.runs import execution, kernel, listing, notebook, run_folder, watch
from miue.storage import files


def work(source: Path, target: Path, parameters, *, on_cell, **limits):
    """What a kernel would do: each code cell in its turn, then the executed notebook and its metrics."""
    book = notebook.load(source)
    for number, cell in notebook.code_cells(book):
        on_cell(number)
        cell.execution_count = number
    book.metadata.papermill = {}
    notebook.save(book, target)
    files.write_json(target.parent / "metrics.json", {"cells": len(book.cells)})


@pytest.fixture
def small(template, monkeypatch):
    template()
    monkeypatch.setattr(kernel, "execute", work)


def only(folder: Path = Path("runs")) -> Path:
    (found,) = folder.iterdir()
    return found


def raises(error: BaseException):
    def execute(*places, on_cell, **limits):
        on_cell(3)
        raise error

    return execute


@pytest.mark.parametrize(
    ("execute", "code", "state", "line"),
    [
        (work, 0, "done", "run: "),
        (raises(kernel.CellError("cell 5: KeyError: 'x'\ndetails")), 1, "failed", "small: cell 5: KeyError: 'x'"),
        (raises(kernel.CellError("cell 5: the kernel died")), 1, "failed", "the kernel died"),
        (raises(OSError(errno.ENOSPC, "No space left on device")), 1, "failed", "No space left on device"),
        (raises(KeyboardInterrupt()), 130, "interrupted", "interrupted"),
    ],
)
def test_exit_codes_states_and_what_is_left(small, miue, monkeypatch, execute, code, state, line):
    monkeypatch.setattr(kernel, "execute", execute)
    found, out, err = miue("run", "small")
    assert found == code and line in out + err and "Traceback" not in err
    status = json.loads((only() / "status.json").read_text())
    assert status["state"] == state and status["ended"] and "process" not in status
    assert not (only() / execution.RESERVE).exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-p", "n=zz"], "parameter n: 'zz'"),
        (["-p", "n"], "-p: 'n'; write it as NAME=VALUE"),
        (["-p", "n=1", "-p", "n=2"], "-p: n is given twice, 1 and 2; give it once"),
        (["-p", "data=folder:nowhere"], "data: nowhere is no folder"),
        (["--limit", "0"], "--limit: 0; it must be above 0"),
        (["--out", "/proc/runs"], "out: /proc/runs cannot be written"),
        (["--out", "_config.yml"], "out: "),
        (["--dry-run"], "no cell is tagged `plan`"),
    ],
)
def test_what_is_refused_is_code_2_in_one_line_and_nothing_starts(small, miue, monkeypatch, words, line):
    monkeypatch.setattr(kernel, "execute", lambda *places, **how: pytest.fail("a kernel was started"))
    code, _, err = miue("run", "small", *words)
    assert code == 2 and line in err and err.count("\n") == 1
    assert not Path("runs").exists()


def test_a_dry_run_prints_the_plan_and_makes_nothing(small, miue, monkeypatch, tmp_path):
    cell = "from miue.experiments.comparison import Setting\nsetting, wanted = Setting(n_train=n, n_test=10), []"
    file = tmp_path / "book" / "experiments" / "small.md"
    file.write_text(file.read_text() + f"\n```{{code-cell}} ipython3\n:tags: [plan]\n\n{cell}\n```\n")
    monkeypatch.setattr(kernel, "execute", lambda *places, **how: pytest.fail("a kernel was started"))
    code, out, _ = miue("run", "small", "-p", "n=20", "--dry-run")
    assert code == 0 and "data: Digits-M" in out and "0 steps for 0 trials, 0 to make" in out
    assert not Path("runs").exists()


@pytest.mark.parametrize(("asked", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_asleep_unless_the_user_has_it_otherwise(small, monkeypatch, asked, found):
    def execute(*places, env, **how):
        assert env["OMP_WAIT_POLICY"] == found
        work(*places, **how)

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if asked:
        monkeypatch.setenv("OMP_WAIT_POLICY", asked)
    monkeypatch.setattr(kernel, "execute", execute)
    runs.run("small")


@pytest.mark.parametrize("full_after", [2, 3])
def test_a_full_disk_fails_the_run_and_the_record_says_so(small, monkeypatch, full_after):
    """The disk is full from a record on, until something is deleted."""
    written = []

    def write(path, value, real=files.write_json):
        written.append(path)
        if len(written) >= full_after and (Path(path).parent / execution.RESERVE).exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, value)

    monkeypatch.setattr(files, "write_json", write)
    with pytest.raises(runs.RunFailed, match="No space left on device"):
        runs.run("small")
    assert json.loads((only() / "status.json").read_text())["state"] == "failed"


def test_a_record_that_cannot_be_written_at_all_is_told_and_the_run_counts_as_lost(small, monkeypatch):
    def write(path, value, real=files.write_json):
        if value.get("state") not in (None, "running"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, value)

    monkeypatch.setattr(files, "write_json", write)
    with pytest.raises(runs.RunFailed, match="its record could not be written .*No space left"):
        runs.run("small")
    assert listing.state(runs.load(only())) == "lost"


def test_a_notebook_that_was_cut_off_is_a_failure(small, monkeypatch):
    def cut(source, target, *rest, **how):
        work(source, target, *rest, **how)
        target.write_text(target.read_text()[:100])

    monkeypatch.setattr(kernel, "execute", cut)
    with pytest.raises(runs.RunFailed, match="is no notebook"):
        runs.run("small")


def test_of_two_processes_that_start_the_same_run_the_second_waits_for_it(small, monkeypatch, capsys):
    first = runs.run("small")
    done = json.loads((first.folder / "status.json").read_text())
    files.write_json(first.folder / "status.json", done | {"state": "running"})
    monkeypatch.setattr(kernel, "execute", lambda *places, **how: pytest.fail("it was run twice"))
    found: list[runs.Run] = []
    second = threading.Thread(target=lambda: found.append(runs.run("small")))
    with run_folder.alone(first.folder):
        second.start()
        second.join(0.5)
        assert second.is_alive() and "another process makes this very run" in capsys.readouterr().err
        files.write_json(first.folder / "status.json", done)
    second.join(10)
    assert found[0].state == "done" and "done before" in capsys.readouterr().err


def test_a_folder_that_holds_other_images_is_another_run(small, tmp_path, monkeypatch):
    monkeypatch.setenv("MIUE_DATA", str(tmp_path / "images"))
    for name in ("dogs", "cats"):
        image = tmp_path / "images" / "pets" / "train" / name / "1.png"
        image.parent.mkdir(parents=True)
        image.write_bytes(b"one")
    first = runs.run("small", {"data": "folder:pets"})
    assert runs.run("small", {"data": "folder:pets"}).folder == first.folder
    image.write_bytes(b"another")
    assert runs.run("small", {"data": "folder:pets"}).folder != first.folder


def test_a_run_that_was_killed_is_made_again(small):
    first = runs.run("small")
    status = json.loads((first.folder / "status.json").read_text())
    files.write_json(first.folder / "status.json", status | {"state": "running"})
    (first.folder / "figures").mkdir()
    assert runs.run("small").state == "done"
    assert not (first.folder / "figures").exists()


def test_figures_are_files_beside_the_notebook(small, monkeypatch):
    def draw(source, target, *rest, **how):
        work(source, target, *rest, **how)
        book = notebook.load(target)
        data = {"image/svg+xml": "<svg/>", "image/png": "aGk="}
        book.cells[-1].outputs = [v4.new_output("display_data", data=data)]
        notebook.save(book, target)

    monkeypatch.setattr(kernel, "execute", draw)
    run = runs.run("small")
    assert {path.suffix for path in (run.folder / "figures").iterdir()} == {".svg", ".png"}
    assert "image/png" not in run.notebook.read_text()
    assert notebook.sha256(run.notebook) == run.status["notebook_sha256"]


def test_a_terminal_has_one_line_that_is_rewritten(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    with watch.shown(tmp_path / "log", "cifar10") as move:
        move("cell 4/12 Perturb and train")
        with open(tmp_path / "log", "a") as log:
            log.write(
                "MI-UE, surrogate epochs 6/15 · loss 0.4\nMI-UE, surrogate epochs 7/15 · loss 0.312 · 3 min left\n"
            )
    shown = capsys.readouterr().err
    assert "cifar10 · cell 4/12 Perturb and train · MI-UE, surrogate epochs 7/15 · loss 0.312 · 3 min left" in shown
    assert "epochs 6/15" not in shown and shown.count("\n") <= 1


def test_what_was_said_at_one_place_is_not_shown_at_the_next(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    with watch.shown(tmp_path / "log", "a run") as move:
        (tmp_path / "log").write_text("epochs 9/9\n")
        move("cell 2/2 Show")
    shown = capsys.readouterr().err
    assert "a run · starting · epochs 9/9" in shown and "a run · cell 2/2 Show · 0 s" in shown


@pytest.mark.parametrize(
    ("width", "text"), [(80, "a run · cell 1/2 Work · epochs 3/9"), (20, "epochs 3/9"), (6, "epochs")]
)
def test_a_narrow_terminal_shows_what_moves(width, text):
    assert watch._fitting("a run · cell 1/2 Work · ", "epochs 3/9", width) == text


def test_elsewhere_places_and_lines_are_lines(tmp_path, capsys):
    with watch.shown(tmp_path / "log", "cifar10") as move:
        move("cell 1/2 Work")
        with open(tmp_path / "log", "a") as log:
            log.write("epochs 3/9\n")
    assert capsys.readouterr().err.splitlines() == ["cifar10: cell 1/2 Work", "  epochs 3/9"]


def test_kernels_are_reached_through_sockets_in_a_folder_of_their_own(tmp_path):
    """Silent failure 6: ports, the default, collide between runs that start at the same time."""
    manager = kernel.manager({"NAME": "$HOME"}, tmp_path)()
    assert manager.transport == "ipc" and Path(manager.ip).parent == tmp_path


def test_a_lock_that_cannot_be_taken_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), run_folder.alone(tmp_path / "file" / "run"):
        pass
