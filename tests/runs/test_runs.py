"""Runs in real kernels: what is recorded of good ones and of bad ones. Silent failures 3, 5, 6, 7 and 8."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from samples import wait

from miue import runs
from miue.errors import InputError
from miue.publishing import publication

HOSTILE = '\'"; import os; os._exit(3) # \\" ${HOME} {x} %s\n\\'


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_a_good_run_is_recorded_published_and_not_done_again(template, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MIUE_DATA", "images")  # relative to where the user stands, not to the kernel
    source = template()
    given = {"data": HOSTILE, "n": np.int64(5), "epsilon": "4/255", "seeds": np.arange(3)}
    run = runs.run("small", given)

    # Values arrive as they were given: as data, whatever they hold.
    wanted = {"data": HOSTILE, "n": 5, "epsilon": 4 / 255, "seeds": [0, 1, 2]}
    assert run.metrics == wanted | {"root": str(tmp_path / "images")}
    assert run.parameters == wanted | {"limit": None}
    assert (run.state, run.status["cells"]) == ("done", {"done": 3, "total": 3})
    assert run.status["template"] == "book/experiments/small.md"
    assert run.status["provenance"]["torch"]
    assert "small: cell 3/3 Work" in capsys.readouterr().err

    # No folder of this machine, and no second copy of the notebook, in what is published (7).
    text = run.notebook.read_text()
    assert str(tmp_path) not in text and str(Path.home()) not in text and sys.prefix not in text
    papermill = json.loads(text)["metadata"]["papermill"]
    assert (papermill["input_path"], papermill["output_path"]) == ("book/experiments/small.md", "small.ipynb")
    assert text.count("json.dump(") == 1

    (page,) = publication.publish([run.folder], "cifar10-small", tmp_path)
    record = json.loads(page.with_suffix(".json").read_text())
    assert page.read_bytes() == run.notebook.read_bytes()
    assert record["metrics"]["n"] == 5 and record["state"] == "done"
    assert str(tmp_path) not in page.with_suffix(".json").read_text()

    # An identical run is recognised; another value, another template or a damaged notebook is not.
    before = run.notebook.stat().st_mtime_ns
    assert runs.run("small", given).notebook.stat().st_mtime_ns == before
    assert "done before" in capsys.readouterr().err
    monkeypatch.setattr(runs.execution._Execution, "go", lambda self, *rest: None)
    for change in (lambda: given.update(n=6), lambda: source.write_text(source.read_text() + "\nMore.\n")):
        change()
        with pytest.raises(InputError, match=r"no readable status\.json"):  # what our stand-in leaves
            runs.run("small", given)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "cell 5: ZeroDivisionError: division by zero"),
        ("import os; os._exit(0)", "cell 5: the kernel died"),
    ],
)
def test_a_run_that_breaks_is_failed_and_never_published(template, tmp_path, code, reason):
    template(f"{code}\n```\n\n```{{code-cell}} ipython3\nimport json; json.dump({{'a': 1}}, open('metrics.json', 'w'))")
    with pytest.raises(runs.RunFailed, match=reason) as failure:
        runs.run("small", {"n": 4})
    found = status(failure.value.folder)
    assert found["state"] == "failed" and found["error"].startswith(reason)
    assert found["cells"] == {"done": 2, "total": 4}
    assert (failure.value.folder / "small.ipynb").is_file()
    with pytest.raises(InputError, match="its state is 'failed'"):
        publication.publish([failure.value.folder], "cifar10-small", tmp_path)
    assert not (tmp_path / "book" / "results").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("pass", r"the notebook wrote no readable metrics\.json"),
        ("open('metrics.json', 'w').write('{')", r"the notebook wrote no readable metrics\.json"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the kernel died"),
        ("import time; time.sleep(60)", "took longer than 3 s"),
    ],
)
def test_ends_that_look_good_are_failures(template, code, reason):
    template(code)
    with pytest.raises(runs.RunFailed, match=reason) as failure:
        runs.run("small", timeout=3)
    assert status(failure.value.folder)["state"] == "failed"


@pytest.mark.slow
def test_cells_that_may_raise_or_be_skipped_are_no_results(template):
    for tag in ("raises-exception", "skip-execution"):
        path = template(
            "raise KeyError('no')\n```\n\n```{code-cell} ipython3\nopen('metrics.json', 'w').write('{\"a\": 1}')"
        )
        text = path.read_text()
        path.write_text(text.replace("ipython3\nraise", f"ipython3\n:tags: [{tag}]\n\nraise"))
        with pytest.raises(runs.RunFailed, match=r"KeyError|was not executed"):
            runs.run("small")


@pytest.mark.slow
def test_the_whole_run_has_a_limit_and_progress_is_passed_on(template, capsys):
    code = "import os, time; print('one', file=open(os.environ['MIUE_PROGRESS'], 'a')); time.sleep(2)"
    template(f"{code}\n```\n\n```{{code-cell}} ipython3\ntime.sleep(60)")
    with pytest.raises(runs.RunFailed, match="passed its limit of 20 s"):
        runs.run("small", timeout=50, limit=20)
    assert "  one\n" in capsys.readouterr().err


@pytest.mark.slow
def test_the_kernel_is_this_python_whatever_is_installed(template, tmp_path, monkeypatch):
    wrong = tmp_path / "jupyter" / "kernels" / "python3"
    wrong.mkdir(parents=True)
    (wrong / "kernel.json").write_text('{"argv": ["/nowhere/python"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(wrong.parents[1]))
    template("import json, sys; json.dump({'python': sys.executable}, open('metrics.json', 'w'))")
    assert runs.run("small").metrics == {"python": sys.executable}


@pytest.mark.slow
def test_runs_side_by_side_do_not_share_ports(template, tmp_path):
    """Silent failure 6: kernels that start together are reached through sockets, each run in a folder of its own."""
    template(
        "import json; from ipykernel.connect import get_connection_info\n"
        "about = json.loads(get_connection_info())\n"
        "json.dump({'transport': about['transport'], 'ip': about['ip']}, open('metrics.json', 'w'))"
    )
    commands = [[sys.executable, "-m", "miue", "run", "small", "-p", f"n={n}"] for n in range(3)]
    started = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) for command in commands]
    assert [process.wait(300) for process in started] == [0, 0, 0]
    found = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/metrics.json")]
    assert {metrics["transport"] for metrics in found} == {"ipc"}
    assert len({metrics["ip"] for metrics in found}) == 3


@pytest.mark.slow
def test_an_interrupted_run_says_so_and_leaves_no_kernel(template, tmp_path):
    template("import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(100)")
    # A background job of a shell, as in CI, hands down an ignored SIGINT.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heed}; from miue import runs; runs.run('small')"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    pid = wait(lambda: next(iter(tmp_path.glob("runs/*/pid")), None), 120)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(30) != 0
    assert status(pid.parent)["state"] == "interrupted"
    assert wait(lambda: not Path(f"/proc/{pid.read_text()}").exists() or not os.path.isdir("/proc"), 15)


@pytest.mark.parametrize("longest", [100, 0])
def test_a_run_needs_no_short_folder_for_temporary_files(template, tmp_path, monkeypatch, longest):
    from miue.runs import kernel

    long = tmp_path / ("t" * 90)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(kernel, "LONGEST", longest)  # with 0, no folder is short enough
    with kernel.private_sockets() as sockets:
        assert (sockets is None) == (longest == 0)
        if sockets:
            assert len(str(sockets)) < 90 and sockets.stat().st_mode & 0o777 == 0o700
    assert not (sockets and sockets.exists())
    template()
    assert runs.run("small").state == "done"
    assert list(long.iterdir()) == []


def test_a_template_that_is_no_text_is_refused_in_one_line(template):
    template().write_bytes(b"\xff\xfe no text")
    with pytest.raises(InputError, match=r"template small\.md: it cannot be read as MyST Markdown in UTF-8"):
        runs.run("small")
