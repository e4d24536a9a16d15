"""A comparison can be stopped at any entry, goes on where it was, and never mixes pictures."""

from dataclasses import replace

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


def test_entries_of_other_pictures_are_refused(tmp_path, monkeypatch):
    records = Records(tmp_path / "r.jsonl", SETTING)
    compare([Entry("clean", "linear")], SETTING, records)
    monkeypatch.setattr(data, "load", lambda *_: (pictures(n=96, seed=7), pictures(n=40, seed=1)))
    for victim in ("linear", "mlp2"):  # also where there is nothing left to measure
        with pytest.raises(InputError, match=r"r\.jsonl was made on other pictures .* than those of noise"):
            compare([Entry("clean", victim)], SETTING, records)


@pytest.mark.parametrize(
    ("entry", "setting", "message"),
    [
        (Entry("magic", "linear"), SETTING, "method: 'magic' does not exist"),
        (Entry("em", "linear"), replace(SETTING, recipe="slow"), "recipe: 'slow' does not exist"),
    ],
)
def test_nothing_is_computed_when_one_entry_or_the_setting_does_not_exist(
    entry, setting, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(comparison, "measure", lambda *_: pytest.fail("computed"))
    with pytest.raises(InputError, match=message):
        compare([Entry("clean", "linear"), entry], setting, Records(tmp_path / "r.jsonl", setting))


def test_a_mixture_and_its_control(tmp_path):
    wanted = [Entry("random", "linear", ratio=0.25), Entry("withheld", "linear", ratio=0.25), Entry("clean", "linear")]
    mixed, alone, clean = compare(wanted, SETTING, Records(tmp_path / "r.jsonl", SETTING)).to_dict(orient="records")
    assert (mixed["trained_on"], alone["trained_on"], clean["trained_on"]) == (96, 72, 96)
    assert mixed["levels"] == 8 and alone["levels"] == 0
    assert alone["mi"] == alone["ceiling"] and alone["disagreement"] == 0  # what is left out is not changed
    assert alone["test_accuracy"] != clean["test_accuracy"] or alone["train_accuracy"] != clean["train_accuracy"]


def test_an_entry_that_is_asked_for_twice_is_measured_once(tmp_path):
    file = tmp_path / "r.jsonl"
    table = compare([Entry("clean", "linear")] * 2, SETTING, Records(file, SETTING))
    assert len(table) == 2 and len(file.read_text().splitlines()) == 2


def test_source_and_budget_of_an_entry_are_those_of_its_perturbation(images):
    entry = Entry("mi_ue:epochs=1:steps=1", "linear", source="mlp2", epsilon="3/255")
    made = comparison.made(entry, SETTING, images, pictures(n=40, seed=1))
    assert (made.poison.record["model"], made.poison.record["levels"]) == ("mlp2", 3)
    assert made.victim.record["model"] == "linear" and made.victim.record["train"] == made.pictures.record()
