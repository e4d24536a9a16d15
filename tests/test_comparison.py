"""A comparison can be stopped at any trial, goes on where it was, and never mixes images."""

from dataclasses import asdict, replace

import pytest
from samples import some_images

from miue.data import loading
from miue.errors import InputError
from miue.experiments import comparison
from miue.experiments.comparison import Records, Setting, Trial, compare, trials

SETTING = Setting(preset="quick", recipe="quick:epochs=1:batch=16", n_slices=4, estimator="histogram")


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: (some_images(n=96), some_images(n=40, seed=1)))


def test_trials_are_every_victim_and_every_defense_of_the_first_a_seed_at_a_time():
    listed = trials(["clean", "lsp"], ["linear", "mlp2"], ["cutmix"], [0, 1])
    assert len(listed) == 2 * (2 * 2 + 2) and [e.seed for e in listed] == [0] * 6 + [1] * 6
    assert Trial("lsp", "linear", "cutmix", 1) in listed and Trial("lsp", "mlp2", "cutmix", 1) not in listed


def test_a_row_says_what_was_measured(tmp_path):
    wanted = [Trial("clean", "linear"), Trial("ops", "linear"), Trial("random", "linear", "iss:kind=grayscale")]
    clean, ops, noise = compare(wanted, SETTING, Records(tmp_path / "r.jsonl", SETTING)).to_dict(orient="records")
    assert clean["mi"] == clean["ceiling"] and clean["disagreement"] == 0 and clean["levels"] == 0
    assert not ops["bounded"] and noise["bounded"] and noise["levels"] == 8
    for row in (clean, ops, noise):
        assert 0 <= row["test_accuracy"] <= row["best_epoch"] <= 1 and (row["n_train"], row["n_test"]) == (96, 40)


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    file, wanted = tmp_path / "r.jsonl", trials(["clean", "lsp"], ["linear"], [], [0, 1])
    whole = compare(wanted, SETTING, Records(tmp_path / "whole.jsonl", SETTING))
    measure, asked = comparison.measure, []

    def counted(trial, *rest):
        asked.append(trial)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return measure(trial, *rest)

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


def test_trials_of_other_images_are_refused(tmp_path, monkeypatch):
    records = Records(tmp_path / "r.jsonl", SETTING)
    compare([Trial("clean", "linear")], SETTING, records)
    monkeypatch.setattr(loading, "load", lambda *_: (some_images(n=96, seed=7), some_images(n=40, seed=1)))
    for victim in ("linear", "mlp2"):  # also where there is nothing left to measure
        with pytest.raises(InputError, match=r"r\.jsonl was made on other images .* than those of noise"):
            compare([Trial("clean", victim)], SETTING, records)


@pytest.mark.parametrize(
    ("trial", "setting", "message"),
    [
        (Trial("magic", "linear"), SETTING, "method: 'magic' does not exist"),
        (Trial("em", "linear"), replace(SETTING, recipe="slow"), "recipe: 'slow' does not exist"),
    ],
)
def test_nothing_is_computed_when_one_trial_or_the_setting_does_not_exist(
    trial, setting, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(comparison, "measure", lambda *_: pytest.fail("computed"))
    with pytest.raises(InputError, match=message):
        compare([Trial("clean", "linear"), trial], setting, Records(tmp_path / "r.jsonl", setting))


def test_a_mixture_and_its_control(tmp_path):
    wanted = [Trial("random", "linear", ratio=0.25), Trial("withheld", "linear", ratio=0.25), Trial("clean", "linear")]
    mixed, alone, clean = compare(wanted, SETTING, Records(tmp_path / "r.jsonl", SETTING)).to_dict(orient="records")
    assert (mixed["trained_on"], alone["trained_on"], clean["trained_on"]) == (96, 72, 96)
    assert mixed["levels"] == 8 and alone["levels"] == 0
    assert alone["mi"] == alone["ceiling"] and alone["disagreement"] == 0  # what is left out is not changed
    assert alone["test_accuracy"] != clean["test_accuracy"] or alone["train_accuracy"] != clean["train_accuracy"]


def test_a_trial_that_is_asked_for_twice_is_measured_and_counted_once(tmp_path):
    file = tmp_path / "r.jsonl"
    table = compare([Trial("clean", "linear")] * 2, SETTING, Records(file, SETTING))
    assert len(table) == 1 and len(file.read_text().splitlines()) == 2  # with the setting


def test_surrogate_and_budget_of_a_trial_are_those_of_its_perturbation(images):
    trial = Trial("mi_ue:epochs=1:steps=1", "linear", surrogate="mlp2", epsilon="3/255")
    made = comparison.made(trial, SETTING, images, some_images(n=40, seed=1))
    assert (made.poison.record["surrogate"], made.poison.record["levels"]) == ("mlp2", 3)
    assert made.victim.record["model"] == "linear" and made.victim.record["train"] == made.images.record()


def test_a_file_of_ones_own_is_named_from_the_top_of_its_checkout(tmp_path):
    (tmp_path / ".git").touch()
    trial = Trial(f"{tmp_path}/deep/own.py:loop", "linear")
    records = Records(tmp_path / "r.jsonl", SETTING)
    records.add(asdict(trial) | {"test_accuracy": 0.5})
    assert '"method": "deep/own.py:loop"' in records.path.read_text() and str(tmp_path) not in records.path.read_text()
    assert records.find(trial)["method"] == trial.method
    assert Records(tmp_path / "r.jsonl", SETTING).find(trial)["test_accuracy"] == 0.5
