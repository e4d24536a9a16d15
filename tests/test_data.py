import hashlib
import os
import shutil
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from torchvision import datasets

import miue
from miue.data import archives, decoding, digits_m, loading
from miue.errors import InputError
from miue.storage.files import cache_dir

DIGITS_TRAIN = "94571a0ce953de5b3ddaeebe3bf7cd5f"
DIGITS_TEST = "8d7388798c50902b3fe8b23135f58561"
PHOTOGRAPHS = "99310b92a8963a4b9118f3a93695bf9d2f7c20a03361f1962972901ccd5560da"


def test_the_photographs_decode_as_everywhere():
    """If this fails, the JPEG decoder differs, and the hashes of Digits-M with it."""
    pixels = b"".join(np.ascontiguousarray(photo).tobytes() for photo in sklearn.datasets.load_sample_images().images)
    assert hashlib.sha256(pixels).hexdigest() == PHOTOGRAPHS


def test_digits_m_is_the_same_on_every_call_and_machine():
    train, test = miue.load("digits_m")
    assert (len(train), len(test), train.shape) == (3000, 1000, (3, 32, 32))
    assert train.content_hash == miue.load("digits_m")[0].content_hash == DIGITS_TRAIN
    assert test.content_hash == DIGITS_TEST
    assert train.y.bincount().min() > 250


def test_digits_m_is_digit_minus_photograph(monkeypatch):
    """With black photographs what is left is the digit, drawn from disjoint pools."""
    black = [np.zeros((427, 640, 3), dtype=np.uint8)] * 2
    monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: type("Photos", (), {"images": black}))
    train, test = digits_m.make(400, 200)
    shape = train.x.float().amax(dim=1)
    assert torch.equal(train.x[:, 0], train.x[:, 1])
    assert (shape[:, 0] == 0).all() and shape.amax() > 200

    def centred(images):
        """The digit cut out of its shifted place."""
        cut = set()
        for image in images.x[:, 0]:
            rows, columns = image.nonzero(as_tuple=True)
            cut.add(image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].numpy().tobytes())
        return cut

    assert not centred(train) & centred(test)


def test_train_and_test_patches_come_from_different_parts(monkeypatch):
    marked = np.zeros((427, 640, 3), dtype=np.uint8)
    marked[:, 384:] = 200
    monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: type("Photos", (), {"images": [marked] * 2}))
    train, test = digits_m.make(200, 200)
    corner = (slice(None), slice(None), 0, 0)  # no digit reaches it
    assert (train.x[corner] == 0).all() and (test.x[corner] == 200).all()


def test_another_seed_draws_other_images():
    assert miue.load("digits_m", n_train=50, n_test=10, seed=1)[0].content_hash != (
        miue.load("digits_m", n_train=50, n_test=10, seed=0)[0].content_hash
    )


def test_folders_are_decoded_once_and_mapped(image_folder, monkeypatch):
    train, test = miue.load(f"folder:{image_folder}", size=16)
    assert (len(train), len(test), train.shape, train.classes) == (12, 6, (3, 16, 16), ["cats", "dogs"])
    monkeypatch.setattr(decoding, "_image", None)  # a second decoding would call it
    again, _ = miue.load(f"folder:{image_folder}", size=16)
    assert again.content_hash == train.content_hash
    assert torch.equal(again.ids, train.ids)


def test_a_changed_image_is_decoded_again(image_folder):
    before, _ = miue.load(f"folder:{image_folder}", size=16)
    Image.new("RGB", (40, 40), "red").save(image_folder / "train" / "cats" / "0.png")
    after, _ = miue.load(f"folder:{image_folder}", size=16)
    assert (before.fingerprints != after.fingerprints).sum() == 1


def flip(file):
    """Change one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)


DAMAGE = {
    "a flipped bit": lambda pixels, prints: flip(pixels),
    "a flipped bit in the fingerprints": lambda pixels, prints: flip(prints),
    "cut off": lambda pixels, prints: pixels.write_bytes(pixels.read_bytes()[:-1]),
    "emptied": lambda pixels, prints: pixels.write_bytes(b""),
    "no fingerprints": lambda pixels, prints: prints.unlink(),
    "another array": lambda pixels, prints: np.save(pixels, np.zeros((6, 3, 16, 16), dtype=np.uint8)),
}


@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE)
def test_damaged_images_in_the_cache_are_decoded_anew(image_folder, harm, capsys):
    before, _ = miue.load(f"folder:{image_folder}", size=16)
    hashed, pixels = before.content_hash, before.x.clone()
    prints = next(file for file in (cache_dir() / "images").glob("*.fingerprints.npy") if len(np.load(file)) == 12)
    harm(prints.with_name(prints.name.replace(".fingerprints", "")), prints)
    capsys.readouterr()
    again, _ = miue.load(f"folder:{image_folder}", size=16)
    assert again.content_hash == hashed and torch.equal(again.x, pixels)
    assert "the decoded images in the cache are damaged; they are decoded anew" in capsys.readouterr().err
    miue.load(f"folder:{image_folder}", size=16)
    assert "damaged" not in capsys.readouterr().err


def test_damage_that_stays_is_reported(image_folder, monkeypatch):
    decode = decoding._decode

    def failing(files, labels, shape, target, name):
        decode(files, labels, shape, target, name)
        flip(target)

    monkeypatch.setattr(decoding, "_decode", failing)
    with pytest.raises(OSError, match="pets, 16 px does not stay as it is decoded; disk or memory may be failing"):
        miue.load(f"folder:{image_folder}", size=16)


def test_one_decodes_and_the_other_waits(image_folder, monkeypatch, capsys):
    """Both want the same; the second comes while the first is in the middle."""
    begun, go_on, decoded = threading.Event(), threading.Event(), []
    image = decoding._image

    def slow(file, size):
        decoded.append(file)
        begun.set()
        assert go_on.wait(20)
        return image(file, size)

    monkeypatch.setattr(decoding, "_image", slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(miue.load, f"folder:{image_folder}", size=16)
        assert begun.wait(20)
        second = pool.submit(miue.load, f"folder:{image_folder}", size=16)
        while "waiting for its result" not in (told := capsys.readouterr().err):
            time.sleep(0.01)
        go_on.set()
        assert first.result()[0].content_hash == second.result()[0].content_hash
    assert "decoding folder pets, 16 px: another process is at it" in told
    assert len(decoded) == len(set(decoded)) == 18


def test_what_a_killed_process_left_is_cleared_away(image_folder):
    miue.load(f"folder:{image_folder}", size=16)
    folder = cache_dir() / "images"
    target = next(folder.glob("*.fingerprints.npy")).name.split(".")[0]
    (folder / f"{target}.npy").unlink()
    (folder / f".{target}.npy.abc.part").write_bytes(b"half")
    miue.load(f"folder:{image_folder}", size=16)
    assert not list(folder.glob("*.part")) and not list(folder.glob(".*.part"))


@pytest.mark.parametrize("damage", [b"", b"../../elsewhere", b"\xff\xfe", b"0" * 31])
def test_a_damaged_note_on_what_is_decoded_is_taken_anew(image_folder, damage):
    before, _ = miue.load(f"folder:{image_folder}", size=16)
    for note in (cache_dir() / "images").glob("*.key"):
        note.write_bytes(damage)
    assert torch.equal(miue.load(f"folder:{image_folder}", size=16)[0].x, before.x)


def packed(folder, archive):
    """Pack a folder under its own name."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w") as out:
            for file in folder.rglob("*"):
                out.write(file, file.relative_to(folder.parent))
    else:
        with tarfile.open(archive, f"w:{archive.suffix[1:].replace('tar', '')}") as out:
            out.add(folder, folder.name)
    return archive


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.xz", ".zip"])
def test_an_archive_is_unpacked_once_and_read_as_its_folder(image_folder, tmp_path, ending, monkeypatch):
    (image_folder / ".DS_Store").touch()
    (image_folder / "train" / "cats" / "._0.png").write_bytes(b"no image")
    plain, _ = miue.load(f"folder:{image_folder}", size=16)
    (tmp_path / "downloads").mkdir()
    archive = packed(image_folder, tmp_path / "downloads" / f"pets{ending}")
    train, test = miue.load(f"folder:{archive}", size=16)
    assert train.content_hash == plain.content_hash and torch.equal(train.ids, plain.ids) and len(test) == 6
    assert train.name == plain.name == "folder pets, 16 px"
    monkeypatch.setattr(archives, "unpack", None)
    again, _ = miue.load("folder:pets", root=archive.parent, size=16)  # beside where the folder would be
    assert again.content_hash == plain.content_hash


def test_images_are_resized_by_the_short_side_and_cropped_in_the_middle(tmp_path):
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.fromarray(wide).save(tmp_path / name / f"{number}.png")
    train, test = miue.load(f"folder:{tmp_path}", size=20)
    assert (train.x == 255).all()
    assert (len(train), len(test)) == (8, 2)  # every fifth image of a class is held out


@pytest.mark.parametrize("kept_as", ["cifar10", "cifar10-jpeg.tar.xz"])
def test_the_jpeg_copy_of_cifar10_is_named_for_what_it_is_and_may_be_an_archive(tmp_path, kept_as):
    copy = tmp_path / ("cifar10" if kept_as == "cifar10" else "unpacked/cifar10")
    for part in ("train", "test"):
        for number, name in enumerate(loading.CIFAR10_CLASSES):
            folder = copy / part / name
            folder.mkdir(parents=True)
            for green in range(3):
                Image.new("RGB", (32, 32), (number, green, 0)).save(folder / f"{green}.jpg", quality=75)
    if kept_as != "cifar10":
        packed(copy, tmp_path / kept_as)
    train, test = miue.load("cifar10", root=tmp_path, n_train=20)
    assert train.name == test.name == train.record()["data"] == "CIFAR-10 (JPEG-75 copy)"
    assert train.y.bincount().tolist() == [2] * 10 and len(test) == 30


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_torchvision_sets_become_images(name, monkeypatch, tmp_path):
    class Fake:
        """What torchvision's classes hold after a download."""

        def __init__(self, root, download, **split):
            hwc = np.arange(10 * 32 * 32 * 3, dtype=np.uint32).reshape(10, 32, 32, 3).astype(np.uint8)
            self.data = hwc.transpose(0, 3, 1, 2) if name == "svhn" else hwc
            self.labels = self.targets = list(range(10))
            if name != "svhn":
                self.classes = [f"c{c}" for c in range(10)]

    monkeypatch.setattr(datasets, name.upper(), Fake)
    train, test = miue.load(name, root=tmp_path)
    assert train.shape == (3, 32, 32) and len(test) == 10
    assert train.x[0, :, 0, 0].tolist() == [0, 1, 2]


def test_subsets_are_seeded_and_in_proportion(monkeypatch, images):
    part = loading.subset(images, "n_train", 20, seed=0)
    assert part.y.bincount().tolist() == [5] * 4
    assert torch.equal(part.ids, loading.subset(images, "n_train", 20, seed=0).ids)
    assert not torch.equal(part.ids, loading.subset(images, "n_train", 20, seed=1).ids)
    assert len(loading.subset(images, "n_train", 47, seed=0)) == 47


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": None}, "data: None does not exist; choose one of digits_m"),
        ({"name": "mnist"}, "data: 'mnist' does not exist; choose one of digits_m"),
        ({"name": "folder:"}, "does not exist"),
        ({"name": "folder:/no/such/place"}, "is no folder"),
        ({"name": "digits_m", "n_train": 3}, "n_train: 3"),
        ({"name": "digits_m", "size": 64}, "size: 64"),
    ],
)
def test_what_cannot_be_loaded_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        miue.load(**arguments)


def test_a_folder_means_the_same_from_everywhere(image_folder, tmp_path, monkeypatch):
    root, here = tmp_path / "root", tmp_path / "here"
    shutil.copytree(image_folder, here / "pets")
    root.mkdir()
    monkeypatch.chdir(here)
    assert loading.settled("folder:pets", root) == f"folder:{here}/pets"
    shutil.copytree(image_folder, root / "pets")
    (root / "pets" / "train" / "cats" / "0.png").unlink()
    assert loading.settled("folder:pets", root) == "folder:pets" and loading.settled("digits_m", root) == "digits_m"
    assert len(miue.load("folder:pets", root, size=16)[0]) == 11  # the root's comes first
    with pytest.raises(InputError, match="data: cows is no folder"):
        loading.settled("folder:cows", root)


def test_a_folder_is_known_by_what_is_in_it(image_folder):
    name, root = f"folder:{image_folder}", image_folder.parent
    before = loading.identity(name, root)
    assert loading.identity("folder:pets", root) == before and loading.identity("digits_m", root) is None
    os.replace(image_folder / "train" / "cats" / "1.png", image_folder / "train" / "dogs" / "1.png")
    assert loading.identity(name, root) != before


def test_missing_data_says_where_it_looked(monkeypatch, tmp_path):
    def offline(**_):
        raise OSError("no network")

    monkeypatch.setattr(datasets, "CIFAR10", offline)
    with pytest.raises(InputError, match=f"CIFAR-10 is neither in {tmp_path}"):
        miue.load("cifar10", root=tmp_path)


def test_more_images_than_there_are(image_folder):
    with pytest.raises(InputError, match=r"n_train: 99; .* has 12 images"):
        miue.load(f"folder:{image_folder}", size=16, n_train=99)


def test_an_unreadable_image_is_named_and_nothing_is_left(image_folder):
    broken = image_folder / "train" / "dogs" / "1.png"
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(InputError, match=r"dogs/1\.png cannot be read as an image"):
        miue.load(f"folder:{image_folder}", size=16)
    assert not list((cache_dir() / "images").glob("*.npy"))
    assert not list((cache_dir() / "images").glob(".*"))


def test_one_class_is_no_data_set(tmp_path):
    (tmp_path / "only").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "only" / "a.png")
    with pytest.raises(InputError, match=r"1 class folder\(s\); at least two"):
        miue.load(f"folder:{tmp_path}", size=8)


def test_an_empty_class_is_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "a.png")
    with pytest.raises(InputError, match="b holds no image"):
        miue.load(f"folder:{tmp_path}", size=8)


def test_pairs_and_captions_are_told_by_what_was_drawn(monkeypatch):
    digits, pairs, captions = (miue.load(name, n_train=200, n_test=50)[0] for name in (
        "digits_m", "digits_m:labels=pairs", "digits_m:labels=captions",
    ))  # fmt: skip
    assert captions.x.equal(digits.x) and len(captions.classes) == 80 and len(pairs.classes) == 55
    said = [captions.classes[label].split("+") for label in captions.y]
    assert [digits_m.WORDS.index(words[0]) for words in said] == digits.y.tolist()
    assert {1, 2} == {len(pairs.classes[label].split("+")) for label in pairs.y}

    photos = [np.zeros((427, 640, 3), dtype=np.uint8), np.full((427, 640, 3), 100, dtype=np.uint8)]
    monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: type("Photos", (), {"images": photos}))
    images, _ = digits_m.make(200, 50, labels="captions")
    for picture, label in zip(images.x[:, 0], images.y, strict=True):
        _, photo, high, left = images.classes[label].split("+")
        ground = int(picture[0, 0])
        assert ground == (0 if photo == "temple" else 100)
        rows, columns = (picture != ground).nonzero(as_tuple=True)
        middle = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
        for word, low, place in ((high, "low", middle[0]), (left, "right", middle[1])):
            assert abs(place - 15.5) < 4 or (word == low) == (place > 15.5)


def test_a_long_tail_falls_by_one_factor_from_class_to_class():
    whole, test = miue.load("digits_m", n_train=2000, n_test=50)
    tailed, same = miue.load("digits_m:tail=16", n_train=2000, n_test=50)
    counts, before = tailed.y.bincount(), whole.y.bincount()
    assert counts.tolist() == [round(int(n) * 16 ** (-c / 9)) for c, n in enumerate(before)]
    assert tailed.name == "Digits-M, long-tailed 16:1" and set(tailed.ids.tolist()) < set(whole.ids.tolist())
    assert same.content_hash == test.content_hash
    assert miue.load("digits_m:tail=1e9", n_train=100, n_test=50, seed=2**64)[0].y.bincount().min() == 1
    three = [miue.load(f"digits_m:classes=3{tail}", n_train=300, n_test=50)[0].y.bincount() for tail in ("", ":tail=4")]
    assert three[1].tolist() == [round(int(n) * 2.0**-c) for c, n in enumerate(three[0])]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits_m:tail=0.5", "tail must be 1 or more"),
        ("digits_m:tail=x", "tail must be 1 or more"),
        ("digits_m:tail=nan", "tail must be 1 or more"),
        ("digits_m:classes=1", "classes must be 2 or more"),
        ("digits_m:tail=2:tail=3", "tail stands in it twice"),
        ("digits_m:labels=words", "labels 'words'|labels: 'words'"),
        ("cifar10:labels=pairs", "labels can be chosen for digits_m only"),
    ],
)
def test_what_stands_behind_a_name_is_checked(name, message):
    with pytest.raises(InputError, match=message):
        miue.load(name, n_train=50, n_test=50)
