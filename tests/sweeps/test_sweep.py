"""Sweeps as a whole: what fails does not stop the rest, what is done is skipped, and the results are collected."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from samples import wait

from miue import runs, sweeps
from miue.errors import InputError
from miue.experiments import bench, plan
from miue.sweeps import execution

MIXED = "template: small\nparameters: {n: 4}\ngrid: {do: [good, fails, dies]}\nlist: [{seeds: [0, 1]}]\n"


def status(out: Path) -> dict:
    (folder,) = (out / "sweeps").iterdir()
    return json.loads((folder / "status.json").read_text())


@pytest.fixture
def found_by_name(monkeypatch):
    """A stand-in's folder is found by what it is called, for it does not carry the hash of a real run's."""

    def find(spec, planned, out):
        folder = Path(out) / f"run-{planned.values['do']}-{planned.values['n']}"
        return runs.load(folder) if folder.exists() else None

    for module in (execution, sweeps):
        monkeypatch.setattr(module, "find", find)


def test_runs_go_on_where_one_fails_and_all_is_recorded(sweep, stand_in, tmp_path, capsys):
    path = sweep(MIXED)
    outcome = sweeps.run(sweeps.read(path), slots=2)
    assert [run["state"] for run in outcome.runs] == ["done", "failed", "failed"]
    assert [run["error"] for run in outcome.failed] == ["five is no good", "its process was killed by SIGKILL"]
    assert [run["last"] for run in outcome.failed] == [
        ["a line", "another"],
        ["at work on dies-4", "at work on dies-4"],
    ]

    found = status(tmp_path / "runs")
    assert (found["state"], found["config"], found["slots"], found["runs"]) == ("failed", "local", 2, outcome.runs)
    assert found["runs"][0]["folder"] == "run-good-4" and found["environment"][0]["OMP_NUM_THREADS"]
    assert (outcome.folder / "sweep.yaml").read_text() == path.read_text()
    assert "at work on good-4" in (outcome.folder / "logs" / "1.log").read_text()

    (row,) = pd.read_csv(outcome.folder / "results.csv").to_dict("records")
    assert (row["run"], row["do"], row["n"], row["metrics.scores.clean"]) == ("run-good-4", "good", 4, 0.5)
    assert "metrics.many" not in row
    trials = pd.read_csv(outcome.folder / "trials.csv")
    assert trials[["run", "do", "method", "seed"]].values.tolist() == [["run-good-4", "good", "em", s] for s in (0, 1)]
    assert trials["n"].tolist() == [7, 7]  # the trial's own, not the parameter's

    said = capsys.readouterr().err
    assert "3 runs, 0 done before; 2 side by side" in said
    assert "run 1 of 3 started: seeds=0,1 do=good" in said
    assert "run 2 of 3 failed: five is no good (" in said and "1 of 3 done, 2 failed" in said


def test_the_command_tells_of_failures_with_code_1_and_skips_what_is_done(
    sweep, stand_in, found_by_name, tmp_path, miue
):
    path = sweep("template: small\ngrid: {do: [good, fails], n: [4, 5]}\n")
    code, out, _ = miue("sweep", path, "--dry-run")
    assert code == 0 and "4 runs of small: 0 done, 4 to do" in out and not (tmp_path / "runs").exists()

    code, out, err = miue("sweep", path, "--slots", "2")
    assert code == 1 and "2 of 4 runs failed; the same command tries them again" in err
    assert "run 3 failed: five is no good\n    a line\n    another\n" in out
    assert [line.split()[1] for line in out.splitlines()[:4]] == ["done", "done", "failed", "failed"]

    code, out, _ = miue("sweep", path, "--dry-run")
    rows = [line.split() for line in out.splitlines()[1:5]]
    assert rows[0] == ["1", "done", "do=good", "n=4"] and rows[2] == ["3", "to", "do", "do=fails", "n=4"]
    assert "2 done, 2 to do" in out
    code, out, err = miue("sweep", path, "--slots", "2")
    assert "4 runs, 2 done before" in err and out.count("done before") == 2
    tries = [len((tmp_path / "runs" / f"tries-{word}").read_text().split()) for word in ("good-4", "fails-4")]
    assert tries == [1, 2]
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    assert len(pd.read_csv(folder / "results.csv")) == 2  # what was done before counts


def test_a_dry_run_tells_what_the_runs_take_and_counts_once_what_they_share(sweep, monkeypatch, tmp_path):
    path = tmp_path / "book" / "experiments" / "small.md"
    plan_cell = """from miue.experiments.comparison import Trial, Setting
setting = Setting("digits_m", 40, 20, preset="quick", recipe="quick")
wanted = [Trial("em", "linear", seed=n), Trial("em", "mlp2", seed=n)][: 1 if do == "good" else 2]"""
    spec = sweep("template: small\ngrid: {do: [good, fails], n: [4, 5]}\n")
    path.write_text(path.read_text() + f"\n```{{code-cell}} ipython3\n:tags: [plan]\n\n{plan_cell}\n```\n")
    monkeypatch.setattr(bench, "SECONDS", 0.001)
    found = sweeps.plans(sweeps.read(spec), tmp_path / "runs")
    assert list(found) == [1, 2, 3, 4]
    assert plan.together(list(found.values())) == plan.together([found[3], found[4]])
    assert plan.together([found[3], found[4]])[1] == pytest.approx(found[3].seconds[1] + found[4].seconds[1])


def test_an_interrupted_sweep_stops_its_runs_and_keeps_what_is_done(sweep, stand_in, tmp_path, capsys, monkeypatch):
    def interrupted(self):
        states = [run["state"] for run in self.runs.values()]
        if states[:2] == ["done", "running"] and (tmp_path / "runs" / "tries-waits-4").exists():
            raise KeyboardInterrupt
        return look(self)

    look = execution.Record.look
    monkeypatch.setattr(execution.Record, "look", interrupted)
    spec = sweeps.read(sweep("template: small\ngrid: {n: [4]}\nlist: [{do: good}, {do: waits}, {do: a}]\n"))
    with pytest.raises(KeyboardInterrupt):
        sweeps.run(spec, slots=1)
    found = status(tmp_path / "runs")
    assert found["state"] == "interrupted" and found["ended"]
    assert [run["state"] for run in found["runs"]] == ["done", "interrupted", "waiting"]
    assert "the same command goes on from there" in capsys.readouterr().err
    assert (tmp_path / "runs" / "let-go-waits-4").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": "magic"}, "config: 'magic' is no file, nor one of local, gpu_box, slurm"),
        ({"slots": 0}, "slots: 0; it must be 1 or above"),
        ({"config": "slurm", "slots": 2}, "slots: 2 is for the configuration local"),
        ({"retries": -1}, "retries, timeout, limit: -1"),
        ({"limit": 0}, "retries, timeout, limit: 1, 86400 s, 0 s"),
        ({"out": "file"}, "out: .*file.* cannot be written"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_starts(sweep, stand_in, tmp_path, options, message):
    spec = sweeps.read(sweep("template: small\n"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        sweeps.run(spec, **options)
    assert not (tmp_path / "runs").exists()


PERTURB = """import json, os, torch
from miue.data.images import Images
from miue.poisons import perturb
x = torch.arange(40 * 3 * 8 * 8).remainder(256).to(torch.uint8).view(40, 3, 8, 8)
made = perturb(Images(x, torch.arange(40) % 4, list("abcd")), "random", seed=0)
json.dump({"n": n, "seconds": made.record["seconds"], "threads": torch.get_num_threads()}, open("metrics.json", "w"))
"""


@pytest.mark.slow
def test_real_runs_share_what_is_expensive_and_are_recognised_later(sweep, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    spec = sweeps.read(sweep("template: small\ngrid: {n: [4, 5]}\n", PERTURB))
    outcome = sweeps.run(spec, slots=2)
    assert not outcome.failed
    results = pd.read_csv(outcome.folder / "results.csv")
    assert results["metrics.n"].tolist() == [4, 5]
    assert results["metrics.seconds"].nunique() == 1  # one of them made it, the other took it
    assert results["metrics.threads"].tolist() == [max(1, len(os.sched_getaffinity(0)) // 2)] * 2
    assert [sweeps.find(spec, run, "runs").folder.name for run in spec.runs] == results["run"].tolist()
    assert [run["state"] for run in sweeps.run(spec).runs] == ["done before"] * 2


@pytest.mark.slow
def test_ctrl_c_stops_the_kernels_and_says_how_to_go_on(sweep, tmp_path):
    path = sweep("template: small\n", "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(100)")
    parent = subprocess.Popen(
        [sys.executable, "-m", "miue", "sweep", str(path)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell, as in CI, hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pid = wait(lambda: next((file for file in tmp_path.glob("runs/*/pid") if file.read_text()), None))
    parent.send_signal(signal.SIGINT)
    _, err = parent.communicate(timeout=60)
    assert parent.returncode in (130, -signal.SIGINT) and "the same command goes on from there" in err, err
    assert json.loads((pid.parent / "status.json").read_text())["state"] == "interrupted"
    assert status(tmp_path / "runs")["runs"][0]["state"] == "interrupted"
    assert wait(lambda: not alive(int(pid.read_text())))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_plans_look_for_what_runs_of_a_slot_would_find(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = torch.get_num_threads()
    with sweeps.as_worker("local", 2):
        assert torch.get_num_threads() == 3
    with sweeps.as_worker("slurm"):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before
