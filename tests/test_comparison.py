"""A comparison can be stopped at any entry, goes on where it was, and never mixes settings."""

import json

import pytest
from samples import pictures

from miue import comparison, data
from miue.comparison import Entry, Records, Setting, compare, entries
from miue.errors import InputError

SETTING = Setting(preset="quick", recipe="quick:epochs=1:batch=16", n_slices=4, estimator="histogram")


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_: (pictures(n=96), pictures(n=40, seed=1)))


def test_entries_are_every_victim_and_every_defense_of_the_first_a_seed_at_a_time():
    listed = entries(["clean", "lsp"], ["linear", "mlp2"], ["cutmix"], [0, 1])
    assert len(listed) == 2 * (2 * 2 + 2) and [e.seed for e in listed] == [0] * 6 + [1] * 6
    assert Entry("lsp", "linear", "cutmix", 1) in listed and Entry("lsp", "mlp2", "cutmix", 1) not in listed


def test_a_row_says_what_was_measured(tmp_path):
    wanted = [Entry("clean", "linear"), Entry("ops", "linear"), Entry("random", "linear", "iss:kind=grayscale")]
    clean, ops, noise = compare(wanted, SETTING, Records(tmp_path / "r.jsonl", SETTING)).to_dict(orient="records")
    assert clean["mi"] == clean["ceiling"] and clean["disagreement"] == 0 and clean["levels"] == 0
    assert not ops["bounded"] and noise["bounded"] and noise["levels"] == 8
    for row in (clean, ops, noise):
        assert 0 <= row["test_accuracy"] <= row["best_epoch"] <= 1 and (row["n_train"], row["n_test"]) == (96, 40)


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    file, wanted = tmp_path / "r.jsonl", entries(["clean", "lsp"], ["linear"], [], [0, 1])
    whole = compare(wanted, SETTING, Records(tmp_path / "whole.jsonl", SETTING))
    measure, asked = comparison.measure, []

    def counted(entry, *rest):
        asked.append(entry)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return measure(entry, *rest)

    monkeypatch.setattr(comparison, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        compare(wanted, SETTING, Records(file, SETTING))
    with open(file, "a") as writer:
        writer.write('{"method": "lsp", "vic')  # killed within a line
    again = compare(wanted, SETTING, Records(file, SETTING))
    assert asked == [*wanted[:3], wanted[2], wanted[3]]
    numbers = ["method", "seed", "test_accuracy", "mi", "null"]
    assert again[numbers].equals(whole[numbers])
    assert len(file.read_text().splitlines()) == 1 + len(wanted)


def test_files_of_another_setting_or_damaged_ones_are_refused(tmp_path):
    file = tmp_path / "r.jsonl"
    Records(file, SETTING)
    with pytest.raises(InputError, match=r"r\.jsonl was made with preset='quick', .*; give these values or another"):
        Records(file, Setting(recipe=SETTING.recipe, n_slices=4))
    for text in ("no json\n", "[]\n", json.dumps({"method": "clean"}) + "\n"):
        file.write_text(text)
        with pytest.raises(InputError, match="is damaged or no file of entries"):
            Records(file, SETTING)


def test_entries_of_other_pictures_are_refused(tmp_path, monkeypatch):
    records = Records(tmp_path / "r.jsonl", SETTING)
    compare([Entry("clean", "linear")], SETTING, records)
    monkeypatch.setattr(data, "load", lambda *_: (pictures(n=96, seed=7), pictures(n=40, seed=1)))
    assert len(compare([Entry("clean", "linear")], SETTING, records)) == 1  # nothing to measure, nothing to load
    with pytest.raises(InputError, match=r"r\.jsonl was made on other pictures .* than those of noise"):
        compare([Entry("clean", "mlp2")], SETTING, records)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry("magic", "linear"), "method: 'magic' does not exist"),
        (Entry("em:speed=1", "linear"), "em option: 'speed' does not exist"),
        (Entry("em", "resnet99"), "model: 'resnet99' does not exist"),
        (Entry("em", "linear", "prayer"), "defense: 'prayer' does not exist"),
    ],
)
def test_nothing_is_computed_when_one_entry_does_not_exist(entry, message, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "measure", lambda *_: pytest.fail("computed"))
    with pytest.raises(InputError, match=message):
        compare([Entry("clean", "linear"), entry], SETTING, Records(tmp_path / "r.jsonl", SETTING))
