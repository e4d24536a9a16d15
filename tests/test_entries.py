"""Entries say what they are made of; a file of entries never mixes settings, pictures or versions."""

import errno
import json
from dataclasses import asdict, replace

import pytest
import torch
from samples import pictures

from miue import poisons
from miue.entries import Entry, Records, Setting, read
from miue.errors import InputError

SETTING = Setting(preset="quick", recipe="quick:epochs=1", n_slices=4)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "r.jsonl"


def changed(train, shown):
    """Which pictures an entry changes, (N,) bool."""
    return (train.x != shown.x).flatten(1).any(1)


def test_a_ratio_perturbs_its_share_and_withheld_leaves_out_the_very_same_pictures():
    train = pictures(n=40)
    poison = poisons.generate("random", train, preset="quick")
    part = changed(train, Entry("random", "linear", seed=3, ratio=0.3).pictures(train, poison))
    more = changed(train, Entry("random", "linear", seed=3, ratio=0.6).pictures(train, poison))
    assert (int(part.sum()), int(more.sum())) == (12, 24) and not (part & ~more).any()
    left = Entry("withheld", "linear", seed=3, ratio=0.3).pictures(train, None)
    assert torch.equal(left.ids, train.ids[~part]) and torch.equal(left.x, train.x[~part])


@pytest.mark.parametrize(
    ("entry", "perturbs"),
    [
        (Entry("clean", "linear"), False),
        (Entry("withheld", "linear", ratio=0.5), False),
        (Entry("em", "linear", ratio=0.0), False),
        (Entry("em", "linear", ratio=0.5), True),
    ],
)
def test_only_what_changes_pictures_needs_a_perturbation(entry, perturbs):
    assert entry.perturbs == perturbs
    if not perturbs and entry.method != "withheld":
        train = pictures()
        assert entry.pictures(train, None) is train


def test_an_entry_names_what_is_special_about_it():
    assert str(Entry("em", "linear")) == "em -> linear"
    special = Entry("em", "linear", "cutmix", 2, "mlp2", "4/255", 0.5)
    assert str(special) == "em -> linear, defense cutmix, seed 2, source mlp2, epsilon 4/255, ratio 0.5"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry("magic", "linear"), "method: 'magic' does not exist"),
        (Entry("em:speed=1", "linear"), "em option: 'speed' does not exist"),
        (Entry("em", "resnet99"), "model: 'resnet99' does not exist"),
        (Entry("em", "linear", source="resnet99"), "model: 'resnet99' does not exist"),
        (Entry("em", "linear", "prayer"), "defense: 'prayer' does not exist"),
        (Entry("em", "linear", epsilon="300/255"), "epsilon"),
        (Entry("em", "linear", ratio=1.5), "ratio: 1.5; it must lie between 0 and 1"),
        (Entry("em", "linear", seed=-1), "seed: -1; it must be a whole number, 0 or above"),
        (Entry("withheld", "linear"), "ratio: 1 with all pictures withheld"),
    ],
)
def test_what_does_not_exist_is_refused(entry, message):
    with pytest.raises(InputError, match=message):
        entry.check(SETTING)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "mnist"}, "data: 'mnist' does not exist"),
        ({"preset": "slow"}, "preset: 'slow' does not exist"),
        ({"recipe": "laptop:speed=2"}, "'speed' does not exist"),
        ({"estimator": "guess"}, "estimator: 'guess' does not exist"),
        ({"n_slices": 0}, "n_slices: 0; it must be 1 or above"),
    ],
)
def test_a_setting_that_does_not_exist_is_refused(change, message):
    SETTING.check()
    with pytest.raises(InputError, match=message):
        replace(SETTING, **change).check()


def test_what_is_added_is_found_again_by_all_fields_of_its_entry(file):
    entry = Entry("em", "linear", ratio=0.5)
    Records(file, SETTING).add(asdict(entry) | {"test_accuracy": 0.5})
    kept = Records(file, SETTING)
    assert kept.find(entry) == asdict(entry) | {"test_accuracy": 0.5}
    for change in ({"ratio": 1.0}, {"source": "mlp2"}, {"epsilon": "4/255"}, {"seed": 1}):
        assert kept.find(replace(entry, **change)) is None
    setting, table = read(file)
    assert setting == SETTING and table["test_accuracy"].tolist() == [0.5]


def test_a_line_that_was_not_finished_is_taken_away_by_who_writes_and_passed_over_by_who_reads(file):
    Records(file, SETTING).add(asdict(Entry("em", "linear")))
    with open(file, "a") as writer:
        writer.write('{"method": "lsp", "vic')
    assert len(read(file)[1]) == 1
    Records(file, SETTING).add(asdict(Entry("lsp", "linear")))
    assert read(file)[1]["method"].tolist() == ["em", "lsp"]


@pytest.mark.parametrize("length", [0, 1, 40])
def test_a_file_whose_writer_was_stopped_within_the_first_line_is_begun_again(file, length):
    Records(file, SETTING)
    whole = file.read_text()
    file.write_text(whole[:length])
    Records(file, SETTING)
    assert file.read_text() == whole


def test_a_stop_while_a_half_line_is_taken_away_loses_no_entry(file, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    Records(file, SETTING).add(asdict(Entry("em", "linear")))
    with open(file, "a") as writer:
        writer.write('{"method": "lsp", "vic')
    before = file.read_text()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr("os.truncate", full)
        Records(file, SETTING)
    assert file.read_text() == before and len(Records(file, SETTING).rows) == 1


def test_files_of_another_setting_or_version_or_damaged_ones_are_refused(file):
    Records(file, SETTING)
    with pytest.raises(InputError, match=r"r\.jsonl was made with preset='quick'; give these values or another file"):
        Records(file, replace(SETTING, preset="laptop"))
    old = {"setting": asdict(SETTING) | {"source": "small_resnet", "epsilon": "8/255"}}
    file.write_text(json.dumps(old) + "\n")
    for opened in (read, lambda path: Records(path, SETTING)):
        with pytest.raises(InputError, match=r"r\.jsonl is of version 1; it must be 3"):
            opened(file)
    other = {"version": 3, "setting": {"pictures": "digits_m"}}
    for text in ("no json\n", "no json", "[]\n", json.dumps({"method": "clean"}) + "\n", json.dumps(other) + "\n"):
        file.write_text(text)
        with pytest.raises(InputError, match="is damaged or no file of entries"):
            Records(file, SETTING)
        assert file.read_text() == text
    with pytest.raises(InputError, match=r"none\.jsonl does not exist"):
        read(file.with_name("none.jsonl"))
