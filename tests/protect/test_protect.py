"""A protected copy: what is promised of it, whatever lies in the folder and whenever it is stopped."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from odd_files import BAD, GOOD, picture, write

from miue import protect
from miue.data import photographs
from miue.errors import InputError
from miue.protect import making
from miue.protect.private import Private
from miue.storage.files import Unwritable

QUICK = {"method": "lsp", "size": 16, "seed": 3}


def folder(at, classes=("ann", "bob"), count=3, start=0):
    """A folder of small photographs."""
    for number, name in enumerate(classes):
        (at / name).mkdir(parents=True, exist_ok=True)
        for one in range(start, start + count):
            picture(100 * number + one).save(at / name / f"{one}.png")
    return at


def content(at):
    return {file.relative_to(at).as_posix(): file.read_bytes() for file in sorted(at.rglob("*")) if file.is_file()}


@pytest.fixture
def photos(tmp_path):
    return folder(tmp_path / "photos")


def moved(one, other):
    pictures = [np.asarray(photographs.read(file).picture).astype(int) for file in (one, other)]
    return np.abs(pictures[0] - pictures[1])


def test_every_image_is_there_within_the_budget_and_the_originals_are_as_they_were(photos, tmp_path):
    before = content(photos)
    made = protect.images(photos, tmp_path / "out", epsilon="6/255", **QUICK)
    assert content(photos) == before
    assert [row["name"] for row in made.rows] == sorted(before) and made.new == 6
    for row in made.rows:
        change = moved(photos / row["source"], made.publish / row["name"])
        assert change.max() == 6 and change.mean() > 1
    assert protect.check(photos, tmp_path / "out") == []
    assert not (made.private / "making").exists()


def test_what_is_in_the_middle_comes_back_when_the_image_is_made_small(tmp_path):
    photos = tmp_path / "photos"
    for name in ("ann", "bob"):
        (photos / name).mkdir(parents=True)
        picture(1, shape=(300, 400)).point(lambda level: 128).save(photos / name / "flat.png")
    made = protect.images(photos, tmp_path / "out", **QUICK)
    for poison_row, row in enumerate(made.rows):
        delta = Private(tmp_path / "out").rounds()[0].delta[poison_row].numpy()
        seen = photographs.read(made.publish / row["name"]).seen(16).astype(int) - 128
        assert np.corrcoef(seen.ravel(), delta.ravel())[0, 1] > 0.9


def test_odd_files_of_all_kinds(tmp_path):
    photos = tmp_path / "photos"
    write(photos / "odd")
    folder(photos, ["other"])
    before = content(photos)
    made = protect.images(photos, tmp_path / "out", **QUICK)
    assert content(photos) == before
    assert sorted(made.unreadable) == sorted(f"odd/{name}" for name in BAD)
    assert len(made.rows) == len(GOOD) + 3
    assert made.left_out["files of the kind .txt"] == made.left_out["hidden files or folders"] == 1
    for row in made.rows:
        change = moved(photos / row["source"], made.publish / row["name"])
        assert 0 < change.max() <= 8, row
        assert (
            photographs.read(made.publish / row["name"]).picture.mode
            == photographs.read(photos / row["source"]).picture.mode
        )
        if change.shape[-1] in (2, 4):
            assert not change[..., -1].any()  # what is transparent stays so
    assert protect.check(photos, tmp_path / "out") == []


@pytest.mark.parametrize(
    "settings", [{"format": "jpeg"}, {"orientation": "keep", "metadata": "keep"}, {"animated": "refuse"}]
)
def test_settings_hold_for_every_file(settings, tmp_path):
    write(tmp_path / "photos" / "odd", GOOD)
    folder(tmp_path / "photos", ["other"])
    made = protect.images(tmp_path / "photos", tmp_path / "out", **QUICK, **settings)
    refused = ["odd/animated.gif", "odd/animated.webp"] if "animated" in settings else []
    assert sorted(made.unreadable) == refused
    endings = {Path(row["name"]).suffix.lower() for row in made.rows}
    assert endings == ({".jpg"} if settings.get("format") == "jpeg" else {".png"})
    assert protect.check(tmp_path / "photos", tmp_path / "out") == []


def test_the_same_call_goes_on_and_adds_what_is_new(photos, tmp_path):
    first = protect.images(photos, tmp_path / "out", **QUICK)
    before = content(first.publish)
    folder(photos, ["ann", "cleo"], count=2, start=7)
    (photos / "bob" / "0.png").unlink()
    picture(500).save(photos / "bob" / "1.png")  # another image of the same name
    second = protect.images(photos, tmp_path / "out")
    assert second.new == 5 and second.gone == ["bob/0.png"]
    after = content(second.publish)
    assert {name for name in before if before[name] != after[name]} == {"bob/1.png"}
    assert {*after} - {*before} == {"ann/7.png", "ann/8.png", "cleo/7.png", "cleo/8.png"}
    assert protect.images(photos, tmp_path / "out").new == 0
    assert content(second.publish) == after
    assert [line for line in protect.check(photos, tmp_path / "out") if "bob/0" not in line] == []


@pytest.mark.parametrize("part", ["read", "perturb", "write"])
def test_a_stop_within_any_step_costs_nothing_that_was_done(part, photos, tmp_path, monkeypatch):
    whole = protect.images(photos, tmp_path / "whole", workers=1, **QUICK)
    names = {"read": "read", "perturb": "perturbed", "write": "write"}
    calls = 0

    def stopped(work):
        def wrapped(*args, **named):
            nonlocal calls
            calls += 1
            if calls == 4:
                raise KeyboardInterrupt
            return work(*args, **named)

        return wrapped

    place = making if part == "perturb" else photographs
    with monkeypatch.context() as patched:
        patched.setattr(place, names[part], stopped(getattr(place, names[part])))
        with pytest.raises(KeyboardInterrupt):
            protect.images(photos, tmp_path / "out", workers=1, **QUICK)
    again = protect.images(photos, tmp_path / "out", workers=1)
    assert content(again.publish) == content(whole.publish)
    assert 0 < again.new < 6 if part != "read" else again.new == 6
    assert not list(tmp_path.rglob("*.part"))


def test_a_full_disk_is_said_and_leaves_no_part(photos, tmp_path, monkeypatch):
    save = photographs.Image.Image.save

    def full(image, file, *args, **named):
        if Path(file).name.startswith(".2.png"):
            Path(file).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(image, file, *args, **named)

    with monkeypatch.context() as patched:
        patched.setattr(photographs.Image.Image, "save", full)
        with pytest.raises(Unwritable, match="is full; free some space"):
            protect.images(photos, tmp_path / "out", **QUICK)
    assert not list(tmp_path.rglob("*.part"))
    assert protect.images(photos, tmp_path / "out").new >= 1
    assert protect.check(photos, tmp_path / "out") == []


def test_folders_in_one_another_are_refused_and_nothing_is_written(photos, tmp_path):
    for images, out in ((photos, photos / "out"), (photos, photos), (photos / "ann", photos), (photos, tmp_path)):
        before = content(tmp_path)
        with pytest.raises(InputError, match="beside each other"):
            protect.images(images, out, **QUICK)
        assert content(tmp_path) == before
    with pytest.raises(InputError, match="beside each other"):
        protect.images(photos / "ann", tmp_path / "out", reference=photos / "ann", **QUICK)


def test_what_lies_in_the_output_already_is_not_written_over(photos, tmp_path):
    folder(tmp_path / "out" / "publish", ["ann"])
    before = content(tmp_path)
    with pytest.raises(InputError, match="holds ann, of something else; give an empty or new folder"):
        protect.images(photos, tmp_path / "out", **QUICK)
    assert {name: text for name, text in content(tmp_path).items() if name != "out/private/.lock"} == before


def test_a_link_does_not_lead_out_of_the_folder_or_into_it(photos, tmp_path):
    folder(tmp_path / "outside", ["secret"])
    (photos / "secret").symlink_to(tmp_path / "outside" / "secret")
    (photos / "ann" / "link.png").symlink_to(tmp_path / "outside" / "secret" / "0.png")
    made = protect.images(photos, tmp_path / "out", **QUICK)
    assert len(made.rows) == 6 and made.left_out["links to files"] == made.left_out["links to folders"] == 1
    (tmp_path / "alias").symlink_to(photos)
    with pytest.raises(InputError, match="beside each other"):
        protect.images(photos, tmp_path / "alias" / "out", **QUICK)


def test_an_output_inside_a_file_is_refused_before_any_work(photos, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="file is a file and no folder"):
        protect.images(photos, tmp_path / "file" / "out", **QUICK)
    assert (tmp_path / "file").read_text() == "no folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_that_cannot_be_written_is_refused_before_any_work(photos, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="give a file in a folder that can be written"):
        protect.images(photos, tmp_path / "locked" / "out", **QUICK)


def test_a_single_class_needs_a_reference_which_stays_as_it_is(photos, tmp_path):
    with pytest.raises(InputError, match="one class alone, ann; .* name a folder of other images as reference"):
        protect.images(photos / "ann", tmp_path / "out", **QUICK)
    folder(tmp_path / "others", ["ann", "x"])
    made = protect.images(photos / "ann", tmp_path / "out", reference=tmp_path / "others", **QUICK)
    assert [row["name"] for row in made.rows] == ["ann/0.png", "ann/1.png", "ann/2.png"]
    assert [row["source"] for row in made.rows] == ["0.png", "1.png", "2.png"]


def test_a_class_of_one_image_and_one_image_in_two_classes(photos, tmp_path):
    (photos / "cleo").mkdir()
    shutil.copy(photos / "ann" / "0.png", photos / "cleo" / "same.png")
    made = protect.images(photos, tmp_path / "out", **QUICK)
    assert made.new == 7 and made.twice == ["ann/0.png", "cleo/same.png"]
    assert moved(made.publish / "ann" / "0.png", made.publish / "cleo" / "same.png").any()


def test_what_was_begun_with_other_settings_is_refused(photos, tmp_path):
    protect.images(photos, tmp_path / "out", **QUICK)
    with pytest.raises(InputError, match="was begun with epsilon='8/255'; say the same, or give another folder"):
        protect.images(photos, tmp_path / "out", epsilon="4/255")
    for wrong, message in (
        ({"epsilo": "4/255"}, "setting: 'epsilo' does not exist"),
        ({"method": "cuda"}, "keeps no budget"),
        ({"method": "nothing"}, "does not exist"),
        ({"size": 8}, "size: 8; it must be"),
        ({"format": "gif"}, "choose one of png, jpeg"),
    ):
        with pytest.raises(InputError, match=message):
            protect.images(photos, tmp_path / "other", **wrong)
    assert not (tmp_path / "other" / "publish").exists()


def test_a_seed_is_drawn_where_none_is_given(photos, tmp_path):
    seeds = set()
    for name in ("one", "two"):
        protect.images(photos, tmp_path / name, method="lsp", size=16)
        seeds.add(json.loads((tmp_path / name / "private" / "settings.json").read_text())["settings"]["seed"])
    assert len(seeds) == 2


def test_the_check_finds_what_is_not_as_it_was_written(photos, tmp_path):
    made = protect.images(photos, tmp_path / "out", **QUICK)
    (made.publish / "ann" / "0.png").unlink()
    picture(9).save(made.publish / "ann" / "1.png")
    (photos / "bob" / "0.png").unlink()
    picture(9).save(photos / "bob" / "1.png")
    assert protect.check(photos, tmp_path / "out") == [
        "ann/0.png: missing",
        "ann/1.png: not as it was written",
        "bob/0.png: its original bob/0.png is gone, so that it cannot be compared",
        "bob/1.png: its original bob/1.png has changed since",
    ]
    with pytest.raises(InputError, match="holds no protected copy"):
        protect.check(photos, tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("after", [0.5, 1.5, 3.0])
def test_a_process_that_is_stopped_at_any_moment_goes_on(signalled, after, tmp_path):
    photos = folder(tmp_path / "photos", count=40)
    words = [sys.executable, "-m", "miue", "protect", photos, "--out", tmp_path / "out"]
    words += ["--method", "em:epochs=3", "--seed", "3", "--size", "16", "--no-victims"]
    process = subprocess.Popen(words)
    for _ in range(400):  # until it is at work
        if (tmp_path / "out" / "private" / "settings.json").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    time.sleep(after)
    process.send_signal(signalled)
    process.wait()
    for file in (tmp_path / "out").rglob("*.png"):
        assert file.name.startswith(".") or photographs.read(file)
    subprocess.run(words, check=True)
    assert protect.check(photos, tmp_path / "out") == [] and not list(tmp_path.rglob("*.part"))
    whole = [*words[:5], "--out", tmp_path / "whole", *words[7:]]
    subprocess.run(whole, check=True)
    assert content(tmp_path / "out" / "publish") == content(tmp_path / "whole" / "publish")


@pytest.mark.slow
def test_memory_is_that_of_the_images_at_work(tmp_path):
    work = (
        "import resource, sys\nfrom miue import protect\nfrom pathlib import Path\n"
        "protect.images(Path(sys.argv[1]), Path(sys.argv[2]), method='lsp', size=16, seed=1, workers=1)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for count in (2, 8):
        for name in ("ann", "bob"):
            (tmp_path / f"{count}" / name).mkdir(parents=True)
            for one in range(count // 2):
                picture(one, shape=(2000, 3000)).save(tmp_path / f"{count}" / name / f"{one}.jpg")
        words = [sys.executable, "-c", work, tmp_path / f"{count}", tmp_path / f"out{count}"]
        peaks.append(int(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] < 1.15 * peaks[0]


@pytest.mark.slow
def test_images_of_300_mb_and_of_20_000_pixels(tmp_path):
    (tmp_path / "photos" / "a").mkdir(parents=True), (tmp_path / "photos" / "b").mkdir()
    large = picture(1, shape=(100, 100)).resize((10_000, 10_000))
    large.save(tmp_path / "photos" / "a" / "large.tif")
    assert (tmp_path / "photos" / "a" / "large.tif").stat().st_size >= 300_000_000
    picture(2, shape=(100, 100)).resize((20_000, 600)).save(tmp_path / "photos" / "b" / "wide.jpg")
    made = protect.images(tmp_path / "photos", tmp_path / "out", workers=1, **QUICK)
    assert [(row["width"], row["height"]) for row in made.rows] == [(10_000, 10_000), (20_000, 600)]
    assert protect.check(tmp_path / "photos", tmp_path / "out") == []
