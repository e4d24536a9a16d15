"""Which files of a folder are images, of which class and for what, and what is said of the rest."""

import os

import pytest
import torch
from PIL import Image

import miue
from miue.data import loading
from miue.errors import InputError


@pytest.fixture
def grow(tmp_path):
    """Write files under one folder: small images where the ending says so. Returns the folder."""

    def write(*files):
        for number, file in enumerate(files):
            path = tmp_path / "set" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() in (".png", ".jpg"):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(path, "PNG")
            else:
                path.write_bytes(b"no image")
        return tmp_path / "set"

    return write


def some(part, count=2):
    return [f"{part}/{name}/{number}.png" for name in ("cats", "dogs") for number in range(count)]


def load(path, **how):
    return miue.load(f"folder:{path}", size=8, **how)


@pytest.mark.parametrize("train", ["train", "Training", "TRAIN"])
@pytest.mark.parametrize("test", ["val", "Valid", "validation", "Test", "testing"])
def test_training_and_test_images_are_told_by_the_usual_names(train, test, grow):
    images, held_out = load(grow(*some(train, 3), *some(test, 1)))
    assert (len(images), len(held_out), images.classes) == (6, 2, ["cats", "dogs"])


def test_of_several_folders_to_test_on_one_is_used_and_that_is_told(grow, capsys):
    images, held_out = load(grow(*some("train", 3), *some("test", 2), *some("Val", 1), "raw/x.png"))
    assert (len(images), len(held_out)) == (6, 2)
    assert "training on train, testing on Val; left out: test, raw" in capsys.readouterr().err


def test_training_images_alone_are_split_and_that_is_told(grow, capsys):
    images, held_out = load(grow(*some("train", 10)))
    assert (len(images), len(held_out)) == (16, 4)
    told = capsys.readouterr().err
    assert "no folder of test images beside train; every fifth image of a class is held out" in told


@pytest.mark.parametrize(
    "files",
    [
        some("val"),
        [*some("val"), *some("test")],
        [*some("train"), *some("Train"), *some("val")],
        [*some("train"), "bus/1.png"],
        ["train/1.png", "val/1.png"],
        ["train/1.png", "train/2.png", "validation/1.png"],
    ],
)
def test_a_layout_that_leaves_open_what_is_for_what_is_refused(files, grow):
    path = grow(*files)
    with pytest.raises(InputError, match="must hold class folders alone, or one called train|0 class folder"):
        load(path)


@pytest.mark.parametrize("names", [("bus", "train"), ("invalid", "valid"), ("other", "test")])
def test_a_class_may_be_called_as_a_part_is(names, grow):
    images, _ = load(grow(*(f"{name}/{number}.png" for name in names for number in range(2))))
    assert images.classes == list(names)


def test_train_and_test_of_other_classes_are_refused(grow):
    with pytest.raises(InputError, match="hold different class folders"):
        load(grow(*some("train"), "val/cats/1.png", "val/cows/1.png"))


LEFT_OUT = [
    "train/cats/.hidden.png",
    "train/cats/.ipynb_checkpoints/0-checkpoint.png",
    "train/dogs/__MACOSX/1.png",
    "train/__MACOSX/cats/1.png",
    "train/.git/x.png",
    "train/cats/Thumbs.db",
    "train/cats/moving.gif",
    "train/cats/more/notes.txt",
    "train/README",
]


def test_what_is_no_image_is_left_out_counted_and_told(grow, capsys):
    images, _ = load(grow(*some("train"), "train/cats/nested/3.png", "train/dogs/0.PNG", *some("val"), *LEFT_OUT))
    assert images.y.bincount().tolist() == [3, 3]
    told = capsys.readouterr().err
    assert "set, 8 px: left out of train: hidden files or folders: 5, " in told
    for part in (
        "files beside the class folders: 1",
        "files of the kind .db: 1",
        "files of the kind .gif: 1",
        "files of the kind .txt: 1",
        "folders without images: 1",
    ):
        assert part in told
    assert "left out of val" not in told


def test_images_and_classes_may_be_links_and_what_else_is_one_is_told(grow, tmp_path, capsys):
    path = grow(*some("train"), *some("val"))
    elsewhere = tmp_path / "elsewhere"
    (path / "train" / "dogs").rename(elsewhere)
    os.symlink(elsewhere, path / "train" / "dogs")
    os.symlink(elsewhere / "0.png", path / "train" / "cats" / "linked.png")
    os.symlink(path / "train", path / "train" / "cats" / "up")
    before = loading.identity(f"folder:{path}", path)
    images, _ = load(path)
    assert images.y.bincount().tolist() == [3, 2]
    assert "left out of train: links to folders: 1" in capsys.readouterr().err
    Image.new("RGB", (8, 8), "red").save(elsewhere / "0.png")
    assert loading.identity(f"folder:{path}", path) != before
    os.symlink(tmp_path / "nothing", path / "train" / "cats" / "dangling.png")
    with pytest.raises(InputError, match=r"dangling\.png cannot be read \(No such file"):
        load(path)


def test_a_folder_that_cannot_be_listed_is_named(grow, monkeypatch):
    path = grow(*some("train"), *some("val"), "train/cats/closed/1.png")
    scan = os.scandir

    def closed(where):
        if str(where).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(where))
        return scan(where)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(InputError, match=r"cats/closed cannot be read \(Permission denied\)"):
        load(path)


def test_equal_images_and_names_that_differ_in_case_are_images_of_their_own(grow):
    path = grow(*some("train"), *some("val"), "train/cats/A.png")
    for name in ("a.png", "a.PNG"):
        (path / "train" / "cats" / name).write_bytes((path / "train" / "cats" / "A.png").read_bytes())
    images, _ = load(path)
    assert len(images) == 7 and len(images.ids.unique()) == 7


@pytest.mark.parametrize(("count", "kept", "held_out"), [(2, 1, 1), (3, 2, 1), (4, 3, 1), (5, 4, 1), (9, 8, 1)])
def test_of_small_classes_one_image_is_held_out(count, kept, held_out, grow):
    images, test = load(grow(*some(".", count)))
    assert images.y.bincount().tolist() == [kept] * 2 and test.y.bincount().tolist() == [held_out] * 2


def test_the_only_image_of_a_class_is_trained_on(grow):
    images, test = load(grow("a/1.png", "b/1.png", "b/2.png"), n_train=2, n_test=1)
    assert images.y.tolist() == [0, 1] and test.y.tolist() == [1]


def test_classes_of_one_image_each_are_refused(grow):
    with pytest.raises(InputError, match="every class of .* has one image, so that none can be held out"):
        load(grow("a/1.png", "b/1.png"))


def test_a_subset_has_an_image_of_every_class_and_the_rest_in_proportion(grow):
    files = [*some("val"), "train/cats/only.png", *(f"train/dogs/{n}.png" for n in range(30))]
    path = grow(*files)
    for wanted in (2, 3, 20, 30, 31):
        images, _ = load(path, n_train=wanted)
        assert images.y.bincount().tolist() == [1, wanted - 1]
    first, again, other = (load(path, n_train=10, seed=seed)[0] for seed in (0, 0, 2**70))
    assert torch.equal(first.ids, again.ids) and not torch.equal(first.ids, other.ids)


@pytest.mark.parametrize("value", [0, -1, True, 2.0, 2.5, float("nan"), "3", 1, 10**9])
@pytest.mark.parametrize("argument", ["n_train", "n_test", "size"])
@pytest.mark.parametrize("name", ["digits_m", "folder:{}"])
def test_numbers_of_images_and_sizes_that_cannot_be_are_refused(argument, value, name, grow):
    path = grow(*some("train"), *some("val"))
    with pytest.raises(InputError, match=argument):
        miue.load(name.format(path), **({"size": 8} if name != "digits_m" else {}) | {argument: value})


def test_a_seed_that_is_none_is_refused():
    with pytest.raises(InputError, match="seed: -1"):
        miue.load("digits_m", n_train=10, n_test=10, seed=-1)


def test_the_first_classes_of_a_data_set_can_be_taken_alone(grow):
    path = grow(*(f"{part}/{name}/{n}.png" for part in ("train", "val") for name in "abc" for n in range(2)))
    whole, fewer = load(path)[0], load(f"{path}:classes=2")
    assert [part.classes for part in fewer] == [["a", "b"], ["a", "b"]]
    assert fewer[0].ids.equal(whole.ids[whole.y < 2]) and fewer[0].x.equal(whole.x[whole.y < 2])
    assert fewer[0].name == f"folder {path.name}, 2 of 3 classes, 8 px"
    for count in (3, 4):
        with pytest.raises(InputError, match=f"classes: {count} of folder .*; it must be from 2 to 2"):
            load(f"{path}:classes={count}")
    with pytest.raises(InputError, match="classes must be 2 or more"):
        load(f"{path}:classes=1")
    digits, _ = miue.load("digits_m:classes=3", n_train=30, n_test=9)
    assert digits.name == "Digits-M, 3 of 10 classes" and digits.y.bincount().tolist() == [10, 10, 10]


def test_a_known_copy_is_named_for_what_it_is(grow, monkeypatch):
    path = grow(*(f"{part}/n0{name}/{n}.png" for part in ("train", "val") for name in "123" for n in range(2)))
    path = path.rename(path.with_name("tiny-imagenet32-jpeg"))
    train, _ = load(f"{path}:classes=2")
    assert train.name == "Tiny-ImageNet, 2 of 3 classes, 8 px (JPEG copy)"
