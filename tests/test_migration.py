"""Records of earlier versions are read in the words of the present one."""

import json
from dataclasses import asdict

import pytest

from miue.experiments.migration import VERSION, renamed, settled
from miue.experiments.records import Records, read
from miue.experiments.trials import Setting, Trial
from miue.runs.run_folder import page_record
from miue.storage.files import write_json

SETTING = Setting(preset="quick", recipe="quick")


def of_version_3(trial):
    row = asdict(trial)
    return {"source" if name == "surrogate" else name: value for name, value in row.items()}


def test_a_file_of_version_3_is_read_and_measured_into(tmp_path):
    file, known, new = tmp_path / "r.jsonl", Trial("em", "mlp2", surrogate="linear"), Trial("em", "mlp2", seed=1)
    rows = [{"version": 3, "setting": asdict(SETTING)}, of_version_3(known) | {"test_accuracy": 0.2}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = Records(file, SETTING)
    assert records.find(known)["test_accuracy"] == 0.2 and records.find(new) is None
    records.add(asdict(new) | {"test_accuracy": 0.3})
    setting, table = read(file)
    assert setting == SETTING and table["surrogate"].tolist() == ["linear", "small_resnet"] and "source" not in table


def test_a_new_file_is_of_the_present_version(tmp_path):
    Records(tmp_path / "r.jsonl", SETTING)
    assert json.loads((tmp_path / "r.jsonl").read_text())["version"] == VERSION == 4


def test_a_published_page_of_before_is_read_in_present_words(tmp_path):
    old = {
        "parameters": {"sources": ["linear"], "source_epochs": [4], "seeds": [0]},
        "metrics": {"entries": [{"method": "em", "source": "linear"}], "data": {"n": 3}},
        "state": "done",
    }
    write_json(tmp_path / "page.json", old)
    assert page_record(tmp_path / "page.json") == {
        "parameters": {"surrogates": ["linear"], "surrogate_epochs": [4], "seeds": [0]},
        "metrics": {"trials": [{"method": "em", "surrogate": "linear"}], "data": {"n": 3}},
        "state": "done",
    }


@pytest.mark.parametrize(("victim", "twin"), [("linear", "weights+order"), ("mlp2", "none")])
def test_rows_of_version_2_are_twins_where_victim_and_surrogate_are_one_network(victim, twin):
    row = settled({"method": "em", "victim": victim, "source": "linear", "seed": 3, "passes": 40})
    assert (row["twin"], row["victim_seed"], row["surrogate"], row["passes_allowed"]) == (twin, 3, "linear", 40)


def test_present_names_stay():
    row = asdict(Trial("em", "linear"))
    assert renamed(row) == settled(row) == row
