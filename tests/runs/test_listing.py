"""Tables over runs, on folders made by hand."""

import json

import pandas as pd
import pytest

from miue import runs
from miue.errors import InputError
from miue.runs import listing, run_folder
from miue.storage import files


def write(folder, *, state="done", metrics=None, provenance=None, started="2026-01-01T00:00:00+00:00", **parameters):
    status = {
        "state": state,
        "template": "book/experiments/cifar10.md",
        "parameters": parameters,
        "notebook": "cifar10.ipynb",
        "notebook_sha256": None,
        "started": started,
        "wall_seconds": 300.0 if state == "done" else None,
        "provenance": provenance or {"torch": "2.6", "commit": "abc"},
    }
    files.write_json(folder / "status.json", status)
    if metrics is not None:
        files.write_json(folder / "metrics.json", metrics)
    return folder


def trial(method, accuracy, **fields):
    return {"method": method, "victim": "mlp2", "defense": "none", "seed": 0, "test_accuracy": accuracy} | fields


@pytest.fixture
def folder(tmp_path):
    trials = [trial("clean", 0.9), trial("em", 0.1), trial("em", 0.2, seed=1), trial("em", 0.8, defense="iss")]
    metrics = {"data": {"data": "Digits-M", "n": 3000}, "trials": trials}
    write(tmp_path / "runs" / "b", metrics=metrics, data="digits_m", preset="quick", seeds=[0, 1], n_train=None)
    write(tmp_path / "runs" / "a", state="failed", started="2026-01-02", data="cifar10", preset="laptop", n_train=4000)
    write(tmp_path / "runs" / "c", state="running", started="2026-01-03", data="digits_m", zeta=0.5)
    (tmp_path / "runs" / "sweeps").mkdir()
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "status.json").write_text("{")
    return tmp_path / "runs"


def test_runs_are_listed_with_what_they_are_and_found(folder):
    table = listing.listed(folder)
    assert list(table["run"]) == ["b", "a", "c"]
    assert list(table["state"]) == ["done", "failed", "lost"]
    assert list(table["n_train"][:2]) == [3000, 4000]
    assert table["test_accuracy"][0] == {"clean": (0.9, 0.9), "em": (0.1, 0.2)}
    lines = listing.shown(table).splitlines()
    assert len(lines) == 4 and "clean 90 %, em 10–20 %" in lines[1] and "0,1" in lines[1] and "5 min" in lines[1]
    assert "zeta" in table and "zeta" not in lines[0]


def test_a_run_whose_process_lives_is_running_and_not_lost(folder):
    with run_folder.alone(folder / "c"):
        assert listing.state(runs.load(folder / "c")) == "running"
    assert listing.state(runs.load(folder / "c")) == "lost"


@pytest.mark.parametrize(
    ("where", "sort", "wanted"),
    [
        ({"data": "digits_m"}, None, ["b", "c"]),
        ({"data": "digits_m", "state": "lost"}, None, ["c"]),
        ({"template": "cifar10", "seeds": "0,1"}, None, ["b"]),
        ({"n_train": "4000"}, None, ["a"]),
        ({"zeta": "0.5"}, None, ["c"]),
        ({"data": "svhn"}, None, []),
        (None, "run", ["a", "b", "c"]),
        (None, "n_train", ["b", "a", "c"]),
    ],
)
def test_filters_and_order(folder, where, sort, wanted):
    assert list(listing.listed(folder, where, sort)["run"]) == wanted


def test_what_no_run_has_and_folders_that_are_not_there_are_refused(folder):
    with pytest.raises(InputError, match="--where: 'datum' does not exist; choose one of run, state"):
        listing.listed(folder, {"datum": "x"})
    with pytest.raises(InputError, match="--sort: 'speed' does not exist"):
        listing.listed(folder, sort="speed")
    with pytest.raises(InputError, match="nowhere does not exist"):
        listing.listed(folder / "nowhere")
    assert listing.shown(listing.listed(folder / "sweeps")) == "no such run"


def test_differences_are_matched_by_what_a_row_is_of(tmp_path):
    rows = [trial("clean", 0.8), trial("em", 0.1)]
    one = write(tmp_path / "one", metrics={"trials": rows, "chance": 0.1}, preset="quick", n_train=100)
    other = write(
        tmp_path / "other",
        metrics={"trials": [trial("em", 0.15), trial("clean", 0.8)], "chance": 0.1, "torch": "2.7"},
        provenance={"torch": "2.7", "commit": "abc"},
        preset="laptop",
        n_train=150,
    )
    found = listing.differences(runs.load(one), runs.load(other))
    assert found[["part", "name", "one", "other"]].values.tolist() == [
        ["parameters", "preset", "quick", "laptop"],
        ["parameters", "n_train", 100, 150],
        ["provenance", "torch", "2.6", "2.7"],
        ["metrics", "trials[em, mlp2, none, 0].test_accuracy", 0.1, 0.15],
    ]
    assert found["relative"][1] == pytest.approx(0.5) and found["relative"][3] == pytest.approx(0.5)
    assert pd.isna(found["relative"][0])
    assert listing.differences(runs.load(one), runs.load(one)).empty


def test_rows_that_no_name_tells_apart_are_matched_by_place(tmp_path):
    def row(estimator, value):
        return {"method": "em", "seed": 0, "estimator": estimator, "mi": value}

    named = [row("ksg", 0.1), row("histogram", 0.2)]
    twins = [row("ksg", 0.1), row("ksg", 0.2)]
    for rows, name in ((named, "em, 0, ksg"), (twins, "0")):
        one = write(tmp_path / "one", metrics={"rows": rows})
        other = write(tmp_path / "other", metrics={"rows": [row("ksg", 0.3), rows[1]]})
        found = listing.differences(runs.load(one), runs.load(other))
        assert found[["name", "one", "other"]].values.tolist() == [[f"rows[{name}].mi", 0.1, 0.3]]


def test_the_command_line_prints_tables_csv_and_json(folder, miue):
    def call(*words):
        code, out, err = miue(*words)
        assert not code, err
        return out

    assert "10–20 %" in call("runs", folder)
    only = json.loads(call("runs", folder, "--where", "state=lost", "--json"))
    assert [run["run"] for run in only] == ["c"] and only[0]["zeta"] == 0.5
    lines = call("runs", folder, "--csv", "--sort", "run").splitlines()
    assert lines[1].startswith("a,failed,cifar10,cifar10,4000") and '"0,1"' in lines[2]
    difference = json.loads(call("diff", folder / "a", folder / "b", "--json"))
    assert {"part": "parameters", "name": "data", "one": "cifar10", "other": "digits_m", "relative": None} in difference
    assert "no difference" in call("diff", folder / "a", folder / "a")
    assert "preset" in call("diff", folder / "a", folder / "b")
