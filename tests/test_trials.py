"""Trials say what they are made of; a file of trials never mixes settings, images or versions."""

import errno
import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from samples import some_images

from miue import poisons
from miue.errors import InputError
from miue.experiments.records import Records, read
from miue.experiments.trials import Setting, Trial

SETTING = Setting(preset="quick", recipe="quick:epochs=1", n_slices=4)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "r.jsonl"


def changed(train, shown):
    """Which images a trial changes, (N,) bool."""
    return (train.x != shown.x).flatten(1).any(1)


def test_a_ratio_perturbs_its_share_and_withheld_leaves_out_the_very_same_images():
    train = some_images(n=40)
    poison = poisons.perturb(train, "random", preset="quick", cache=False)
    part = changed(train, Trial("random", "linear", seed=3, ratio=0.3).images(train, poison))
    more = changed(train, Trial("random", "linear", seed=3, ratio=0.6).images(train, poison))
    assert (int(part.sum()), int(more.sum())) == (12, 24) and not (part & ~more).any()
    left = Trial("withheld", "linear", seed=3, ratio=0.3).images(train, None)
    assert torch.equal(left.ids, train.ids[~part]) and torch.equal(left.x, train.x[~part])


@pytest.mark.parametrize(
    ("trial", "perturbs"),
    [
        (Trial("clean", "linear"), False),
        (Trial("withheld", "linear", ratio=0.5), False),
        (Trial("em", "linear", ratio=0.0), False),
        (Trial("em", "linear", ratio=0.5), True),
    ],
)
def test_only_what_changes_images_needs_a_perturbation(trial, perturbs):
    assert trial.perturbs == perturbs
    if not perturbs and trial.method != "withheld":
        train = some_images()
        assert trial.images(train, None) is train


def test_a_trial_names_what_is_special_about_it():
    assert str(Trial("em", "linear")) == "em -> linear"
    special = Trial("em", "linear", "cutmix", 2, "mlp2", "4/255", 0.5)
    assert str(special) == "em -> linear, defense cutmix, seed 2, surrogate mlp2, epsilon 4/255 (4 levels), ratio 0.5"


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (Trial("magic", "linear"), "method: 'magic' does not exist"),
        (Trial("em:speed=1", "linear"), "em option: 'speed' does not exist"),
        (Trial("em", "resnet99"), "model: 'resnet99' does not exist"),
        (Trial("em", "linear", surrogate="resnet99"), "model: 'resnet99' does not exist"),
        (Trial("em", "linear", "prayer"), "defense: 'prayer' does not exist"),
        (Trial("em", "linear", epsilon="300/255"), "epsilon"),
        (Trial("em", "linear", ratio=1.5), "ratio: 1.5; it must be a number from 0 to 1"),
        (Trial("em", "linear", seed=-1), "seed: -1; it must be a whole number, 0 or above"),
        (Trial("withheld", "linear"), "ratio: 1 with all images withheld"),
    ],
)
def test_what_does_not_exist_is_refused(trial, message):
    with pytest.raises(InputError, match=message):
        trial.check(SETTING)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "mnist"}, "data: 'mnist' does not exist"),
        ({"preset": "slow"}, "preset: 'slow' does not exist"),
        ({"recipe": "laptop:speed=2"}, "'speed' does not exist"),
        ({"estimator": "guess"}, "estimator: 'guess' does not exist"),
        ({"passes": 0}, "passes: 0; it must be a whole number from 1 to 1,000,000,000, or text"),
        ({"n_slices": 0}, "n_slices: 0; it must be a whole number from 1"),
    ],
)
def test_a_setting_that_does_not_exist_is_refused(change, message):
    SETTING.check()
    with pytest.raises(InputError, match=message):
        replace(SETTING, **change).check()


def test_what_is_added_is_found_again_by_all_fields_of_its_trial(file):
    trial = Trial("em", "linear", ratio=0.5)
    Records(file, SETTING).add(asdict(trial) | {"test_accuracy": 0.5})
    kept = Records(file, SETTING)
    assert kept.find(trial) == asdict(trial) | {"test_accuracy": 0.5}
    for change in ({"ratio": 1.0}, {"surrogate": "mlp2"}, {"epsilon": "4/255"}, {"seed": 1}):
        assert kept.find(replace(trial, **change)) is None
    setting, table = read(file)
    assert setting == SETTING and table["test_accuracy"].tolist() == [0.5]


def test_a_line_that_was_not_finished_is_taken_away_by_who_writes_and_passed_over_by_who_reads(file):
    Records(file, SETTING).add(asdict(Trial("em", "linear")))
    with open(file, "a") as writer:
        writer.write('{"method": "lsp", "vic')
    assert len(read(file)[1]) == 1
    Records(file, SETTING).add(asdict(Trial("lsp", "linear")))
    assert read(file)[1]["method"].tolist() == ["em", "lsp"]


@pytest.mark.parametrize("length", [0, 1, 40])
def test_a_file_whose_writer_was_stopped_within_the_first_line_is_begun_again(file, length):
    Records(file, SETTING)
    whole = file.read_text()
    file.write_text(whole[:length])
    Records(file, SETTING)
    assert file.read_text() == whole


def test_a_stop_while_a_half_line_is_taken_away_loses_no_trial(file, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    Records(file, SETTING).add(asdict(Trial("em", "linear")))
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
    old = {"setting": asdict(SETTING) | {"surrogate": "small_resnet", "epsilon": "8/255"}}
    file.write_text(json.dumps(old) + "\n")
    for opened in (read, lambda path: Records(path, SETTING)):
        with pytest.raises(InputError, match=r"r\.jsonl is of version 1; it must be 4"):
            opened(file)
    other = {"version": 4, "setting": {"images": "digits_m"}}
    for text in ("no json\n", "no json", "[]\n", json.dumps({"method": "clean"}) + "\n", json.dumps(other) + "\n"):
        file.write_text(text)
        with pytest.raises(InputError, match="is damaged or no file of trials"):
            Records(file, SETTING)
        assert file.read_text() == text
    with pytest.raises(InputError, match=r"none\.jsonl does not exist"):
        read(file.with_name("none.jsonl"))


WRITER = """
import sys
from dataclasses import asdict
from miue.experiments.trials import Trial
from miue.experiments.trials import Setting
from miue.experiments.records import Records

path, method = sys.argv[1:]
setting = Setting(preset="quick", recipe="quick:epochs=1", n_slices=4)
records = Records(path, setting)
print("ready", flush=True)
sys.stdin.readline()
for seed in range(30):
    Records(path, setting)  # as one that is opened while the other appends
    records.add(asdict(Trial(method, "linear", seed=seed)) | {"long": "x" * 20_000})
records.add(asdict(Trial("clean", "linear")))
"""


@pytest.mark.slow
def test_two_processes_that_append_at_the_same_time_lose_nothing(file):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), method], **pipes) for method in ("em", "lsp")]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    _, table = read(file)
    seeds = {method: sorted(rows["seed"]) for method, rows in table.groupby("method")}
    assert seeds == {"em": [*range(30)], "lsp": [*range(30)], "clean": [0]}


def test_what_another_process_measured_meanwhile_is_found_and_stays_the_only_row(file):
    here, there = Records(file, SETTING), Records(file, SETTING)
    trial = Trial("em", "linear")
    there.add(asdict(trial) | {"test_accuracy": 0.5})
    assert here.find(trial)["test_accuracy"] == 0.5
    later = replace(trial, seed=1)
    there.add(asdict(later) | {"test_accuracy": 0.6})
    here.add(asdict(later) | {"test_accuracy": 0.7})
    assert here.find(later)["test_accuracy"] == 0.6
    assert read(file)[1]["test_accuracy"].tolist() == [0.5, 0.6]


def test_a_line_that_this_very_process_could_not_finish_is_cut_by_its_next(file):
    records = Records(file, SETTING)
    with open(file, "ab") as full:
        full.write(b'{"method": "lsp", "vic')
    records.add(asdict(Trial("em", "linear")))
    assert read(file)[1]["method"].tolist() == ["em"]


def test_a_file_of_trials_that_cannot_be_one_is_refused_in_one_line(tmp_path, file):
    with pytest.raises(InputError, match="is a folder; give a file"):
        Records(tmp_path, SETTING)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=r"r\.jsonl cannot be written; give a file in a folder that can"):
        Records(tmp_path / "taken" / "r.jsonl", SETTING)
    file.write_bytes(b"\xff\xfe\n")
    with pytest.raises(InputError, match="is damaged or no file of trials"):
        read(file)
